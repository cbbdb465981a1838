// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The decoder on a CUDA device against the same one in double on a host: logits, gradients, and
// tokens that a replayed graph samples.

// What only the host's bodies use is compiled here for the host alone: a function of the host that
// one of both sides calls, or an operator that is never used (554), is no business of the device.
#pragma nv_diag_suppress 20011, 20012, 20013, 20014, 20015, 554

#include <algorithm>
#include <cmath>

#include "examples/cuda_step/graph_repeat.cuh"
#include "examples/decoder/device/sampler.hpp"
#include "lamina/backend/cuda.cuh"
#include "lamina/layers/selector.hpp"
#include "tests/examples/decoder_attention_cases.hpp"
#include "tests/support/device.cuh"

using namespace decoder;
using decoder::testing::attention_outcome;
using decoder::testing::attention_problem;
using decoder::testing::attention_shape;
using decoder::testing::named_config;
using decoder::testing::random_batch;
using decoder::testing::small_configs;
using lamina::bf16;

namespace {

using on_cuda = lamina::cuda_backend<float>;
using host = lamina::testing::minimal_backend<double>;

template <class Backend, class T>
std::vector<T> fetch(Backend const& backend, vector_view<T> view) {
  std::vector<T> values(static_cast<std::size_t>(view.size));
  lamina::copy_elements(backend, vector_view<T const>(view), vector_view<T>(values));
  lamina::wait(backend);
  return values;
}

template <class T>
double distance(std::vector<T> const& a, std::vector<double> const& b) {
  REQUIRE(a.size() == b.size());
  double largest = 1e-30, difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(b[i]));
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return difference / largest;
}

// The same random weights on both sides.
template <class Weight = float>
struct models {
  explicit models(config const& shape)
      : backend(stream), device(backend, shape), reference(host{}, shape) {
    lamina::counter_generator draws(7);
    for (index_t layer = lamina::outside_layers; layer < shape.layer_count; ++layer) {
      write_values(backend, device.block(layer).weights(),
                   [&](index_t) { return Weight(static_cast<float>(draws.uniform() - 0.5)); });
    }
    reference.copy_weights(device);
  }
  ::testing::owned_stream stream;
  on_cuda backend;
  transformer<on_cuda, Weight> device;
  transformer<host> reference;
};

// A forward and a backward pass; returns the logits.
template <class Backend, class Weight, class T = typename Backend::scalar_type>
std::vector<T> run(transformer<Backend, Weight>& model, token_batch const& batch,
                   lamina::backward_plan const& plan) {
  Backend const& backend = model.backend();
  batch_for<Backend> placed;
  if constexpr (lamina::device_backend<Backend>) {
    placed = {backend, batch, model.shape()};
  } else {
    placed = batch;
  }
  auto const logits = model.forward(placed, plan);
  auto const result = fetch(backend, flat(logits));
  // d loss / d logits, of the loss that is half the sum of their squares: the logits themselves.
  model.backward(logits, plan);
  lamina::wait(backend);  // for the batch
  return result;
}

// Distances of logits, and of the gradient that is farthest off, from those in double.
template <class Weight>
std::pair<double, double> distances(config const& shape, std::vector<index_t> const& lengths) {
  models<Weight> both(shape);
  auto const plan =
      lamina::plan_backward(3, lamina::all_layers(3), {.embeddings = true, .final_norm = true});
  auto const batch = random_batch(shape, lengths, 3);
  double const logits = distance(run(both.device, batch, plan), run(both.reference, batch, plan));
  auto const ours = lamina::all_parameters(both.device);
  auto const theirs = lamina::all_parameters(both.reference);
  double gradients = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (theirs[i].gradient.empty()) continue;
    gradients = std::max(gradients, distance(fetch(both.backend, ours[i].gradient),
                                             fetch(both.reference.backend(), theirs[i].gradient)));
  }
  return {logits, gradients};
}

// Heads of a common width, grouped, with biases.
config wide_heads(index_t head_width) {
  config shape = small_configs()[1].shape;
  shape.head_width = head_width;
  shape.width = 96;
  return shape;
}

}  // namespace

TEST_CASE("decoder on CUDA: logits and gradients are those of double precision") {
  auto configs = small_configs();
  configs.push_back({"wide heads", wide_heads(64)});
  for (named_config const& tested : configs) {
    CAPTURE(tested.name);
    auto const [logits, gradients] = distances<float>(tested.shape, {5, 2, 70, 1});
    CHECK(logits < 1e-4);
    CHECK(gradients < 1e-3);
  }
}

TEST_CASE("decoder on CUDA: with bfloat16 weights they differ by the rounding of factors") {
  for (index_t const width : {64, 128}) {
    CAPTURE(width);
    auto const [logits, gradients] = distances<bf16>(wide_heads(width), {5, 150, 1, 70});
    CHECK(logits < 0.02);
    CHECK(gradients < 0.06);
  }
}

TEST_CASE("attention on CUDA: tensor cores are as near to double as rounded factors can be") {
  double const unit = 1.0 / 512;  // half a unit in the last of the 8 bits of a number near 1
  ::testing::owned_stream stream;
  on_cuda const backend(stream);
  for (attention_shape const& c : {attention_shape{1, 1, 64, 300}, attention_shape{6, 2, 64, 131},
                                   attention_shape{2, 1, 128, 200}, attention_shape{4, 2, 100, 37},
                                   attention_shape{6, 2, 6, 45}, attention_shape{130, 1, 16, 2}}) {
    CAPTURE(c.heads);
    CAPTURE(c.width);
    attention_problem const p(c);
    attention_outcome const expected = p.on_host(), got = p.on<on_cuda, bf16>(backend);
    CHECK(distance(got.mixed, expected.mixed) < 4 * unit);
    CHECK(distance(got.log_sums, expected.log_sums) < 2 * unit);
    CHECK(distance(got.d_qkv, expected.d_qkv) < 4 * unit);
    attention_outcome const wide = p.on(backend);
    CHECK(distance(wide.mixed, expected.mixed) < 1e-5);
    CHECK(distance(wide.log_sums, expected.log_sums) < 1e-5);
    CHECK(distance(wide.d_qkv, expected.d_qkv) < 1e-5);
  }
}

TEST_CASE("decoder on CUDA: a replayed graph samples the tokens of steps asked for one by one") {
  models<> both(small_configs()[4].shape);
  std::vector<std::vector<std::int32_t>> const prompts{{1, 2, 3}, {4}, {5, 6, 7, 8, 9, 1}};
  sampling_options const options{.temperature = 0.8, .allowed = {.top_p = 0.9}, .seed = 7};
  device_sampler sampler(both.backend);
  sampler.start(both.device, prompts, 4, options, 20);
  for (int step = 0; step < 18; ++step) sampler.step(both.device);
  auto const expected = sampler.read();
  sampler.start(both.device, prompts, 4, options, 20);
  cuda_step::graph_repeat{both.stream}(18, [&] { sampler.step(both.device); });
  CHECK(sampler.read().tokens == expected.tokens);
  CHECK(sampler.active_count() == 0);

  auto const in_double = sample(both.reference, prompts, 4, fixed_length{}, options, 20);
  CHECK(in_double.tokens == expected.tokens);
}
