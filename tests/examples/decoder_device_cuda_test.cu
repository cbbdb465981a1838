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
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/device.cuh"
#include "tests/support/minimal_backend.hpp"

using namespace decoder;
using decoder::testing::named_config;
using decoder::testing::random_batch;
using decoder::testing::small_configs;

namespace {

using cuda = lamina::cuda_backend<float>;
using host = lamina::testing::minimal_backend<double>;

template <class Backend, class T>
std::vector<T> fetch(Backend const& backend, vector_view<T> view) {
  std::vector<T> values(static_cast<std::size_t>(view.size));
  lamina::copy_elements(backend, vector_view<T const>(view), vector_view<T>(values));
  lamina::wait(backend);
  return values;
}

double distance(std::vector<float> const& a, std::vector<double> const& b) {
  REQUIRE(a.size() == b.size());
  double largest = 1e-30, difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(b[i]));
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return difference / largest;
}

// The same random weights on both sides.
struct models {
  explicit models(config const& shape)
      : backend(stream), device(backend, shape), reference(host{}, shape) {
    lamina::counter_generator draws(7);
    for (index_t layer = lamina::outside_layers; layer < shape.layer_count; ++layer) {
      write_values(backend, device.block(layer).weights(),
                   [&](index_t) { return static_cast<float>(draws.uniform() - 0.5); });
    }
    reference.copy_weights(device);
  }
  ::testing::owned_stream stream;
  cuda backend;
  transformer<cuda> device;
  transformer<host> reference;
};

// A forward and a backward pass; returns the logits.
template <class Backend, class T = typename Backend::scalar_type>
std::vector<T> run(transformer<Backend>& model, token_batch const& batch,
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

}  // namespace

TEST_CASE("decoder on CUDA: logits and gradients are those of double precision") {
  auto configs = small_configs();
  config real = configs[1].shape;  // heads of a common width, sequences of several tiles
  real.head_width = 64;
  real.width = 96;
  configs.push_back({"wide heads", real});
  for (named_config const& tested : configs) {
    CAPTURE(tested.name);
    models both(tested.shape);
    auto const plan =
        lamina::plan_backward(3, lamina::all_layers(3), {.embeddings = true, .final_norm = true});
    auto const batch = random_batch(tested.shape, {5, 2, 70, 1}, 3);
    CHECK(distance(run(both.device, batch, plan), run(both.reference, batch, plan)) < 1e-4);
    auto const ours = lamina::all_parameters(both.device);
    auto const theirs = lamina::all_parameters(both.reference);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      if (theirs[i].gradient.empty()) continue;
      CAPTURE(ours[i].name);
      CHECK(distance(fetch(both.backend, ours[i].gradient),
                     fetch(both.reference.backend(), theirs[i].gradient)) < 1e-3);
    }
  }
}

TEST_CASE("decoder on CUDA: a replayed graph samples the tokens of steps asked for one by one") {
  models both(small_configs()[4].shape);
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
