// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Optimizers, training steps, references and prefixes on a CUDA device: what the device played by
// the host comes to, and a step that a graph replays under a schedule.
#include <cmath>
#include <limits>
#include <utility>

#include "lamina/backend/cuda.cuh"
#include "lamina/backend/host_copy.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/model/reference.hpp"
#include "lamina/model/train_step.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/optim/sgd.hpp"
#include "lamina/policy/presets.hpp"
#include "tests/optim/device_tensors.hpp"
#include "tests/support/device.cuh"
#include "tests/support/device_batch.hpp"
#include "tests/support/device_model.hpp"
#include "tests/support/minimal_model.hpp"
#include "tests/support/simulated_device.hpp"

using namespace lamina;
using namespace lamina::testing;
using ::testing::check;
using ::testing::owned_stream;

namespace {

using cuda = cuda_backend<float>;
using simulated = simulated_device<float>;

struct make_adamw {
  template <class Backend, class T>
  auto operator()(Backend const& backend, std::vector<parameter_view<T>> parameters) const {
    return adamw(backend, std::move(parameters),
                 {.learning_rate = 0.01, .clip_norm = 20, .rates = boost(single_layer(2), 2.0)});
  }
};
struct make_sgd {
  template <class Backend, class T>
  auto operator()(Backend const& backend, std::vector<parameter_view<T>> parameters) const {
    return sgd(backend, std::move(parameters),
               {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 0.1});
  }
};

// Fused multiply-adds and the order of sums differ: some units in the last place of S, which may
// turn a rounding to T.
template <class T>
void check_close(std::vector<std::vector<T>> const& found,
                 std::vector<std::vector<T>> const& expected) {
  double const tolerance = sizeof(T) == 2 ? 0x1p-8 : 2e-6;
  REQUIRE(found.size() == expected.size());
  for (std::size_t t = 0; t < found.size(); ++t) {
    REQUIRE(found[t].size() == expected[t].size());
    double worst = 0;
    for (std::size_t i = 0; i < found[t].size(); ++i) {
      double const a = static_cast<double>(found[t][i]), b = static_cast<double>(expected[t][i]);
      double const difference = std::fabs(a - b) / (1e-2 + std::fabs(b));
      worst = difference > worst ? difference : worst;
    }
    CHECK(worst < tolerance);
  }
}

// The same run on both devices.
template <class Make, class T>
void run_on_both() {
  owned_stream const stream;
  cuda const device(stream);
  simulated const expected_device;
  auto host = tensors_of_many_sizes<T>();
  device_tensors tensors(device, host);
  device_tensors expected(expected_device, host);
  auto optimizer = Make{}(device, tensors.parameters());
  auto reference = Make{}(expected_device, expected.parameters());
  for (std::uint64_t step = 1; step <= 5; ++step) {
    host.draw_gradients(step);
    if (step == 3) host.tensors[4].gradient[17] = T(std::numeric_limits<float>::infinity());
    tensors.copy_gradients();
    expected.copy_gradients();
    optimizer.step();
    reference.step();
    auto const found = optimizer.read_status(), wanted = reference.read_status();
    CHECK(found.skipped == (step == 3));
    CHECK(found.nonfinite_count == wanted.nonfinite_count);
    if (step == 3) continue;
    CHECK(found.gradient_norm == doctest::Approx(wanted.gradient_norm).epsilon(1e-13));
    CHECK(found.clip_scale == doctest::Approx(wanted.clip_scale).epsilon(1e-13));
  }
  check_close(tensors.weights(), expected.weights());
  check_close(remembered(optimizer), remembered(reference));
  optimizer.rebind({tensors.parameters()[7]}, moments::keep);
  CHECK(optimizer.parked().size() == 7);
  CHECK(optimizer.state().step_count(0) == 4);
}

}  // namespace

TEST_CASE_TEMPLATE("adamw on CUDA: the run of the simulated device", T, float, bf16) {
  run_on_both<make_adamw, T>();
}

TEST_CASE("sgd on CUDA: the run of the simulated device") { run_on_both<make_sgd, float>(); }

TEST_CASE("gradient_norm on CUDA: the same bits every time, as on the simulated device") {
  owned_stream const stream;
  cuda const device(stream);
  auto host = tensors_of_many_sizes<float>();
  device_tensors tensors(device, host);
  simulated const expected_device;
  device_tensors expected(expected_device, host);
  auto const first = gradient_norm(device, tensors.parameters());
  CHECK(first.norm ==
        doctest::Approx(gradient_norm(expected_device, expected.parameters()).norm).epsilon(1e-13));
  gradient_norm_meter<cuda, float> meter(device, tensors.parameters());
  for (int i = 0; i < 10; ++i) {
    meter.run();
    CHECK(meter.read().norm == first.norm);
  }
}

TEST_CASE("a step in a CUDA graph: replayed under a schedule, the bits of steps one by one") {
  owned_stream const stream;
  cuda const device(stream);
  auto host = tensors_of_many_sizes<float>(), twin = tensors_of_many_sizes<float>();
  device_tensors tensors(device, host);
  device_tensors twins(device, twin);
  auto optimizer = make_adamw{}(device, tensors.parameters());
  auto one_by_one = make_adamw{}(device, twins.parameters());
  device_vector<cuda, double> rate(device, 1);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  optimizer.step(std::as_const(rate).view());
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  std::vector<double> const rates{0.01, 0.02, 0.005};
  for (double const& now : rates) {
    rate.assign(device, vector_view<double const>(&now, 1));
    check(cudaGraphLaunch(executable, stream));
    one_by_one.step(now);
  }
  CHECK(optimizer.read_status().learning_rate == 0.005);
  CHECK(tensors.weights() == twins.weights());
  CHECK(remembered(optimizer) == remembered(one_by_one));
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

namespace {

index_t const vocab = 6, layers = 4;

// Two steps of one layer from a cached prefix, and the reference afterwards.
template <class Backend, class T>
std::vector<std::vector<T>> trained_weights(Backend const& backend) {
  minimal_model<float> host(layers, vocab);
  device_model<Backend, T> model(backend, host, vocab);
  auto const batch = random_batch<float>(17, 8, vocab);
  device_batch<Backend, float> arrays(backend, batch);
  device_outputs<Backend, float> outputs(backend, batch.tokens(), false);
  policy_report<Backend> report(backend, 8);
  auto const tokens =
      on_device(backend, std::vector<std::int32_t>(static_cast<std::size_t>(batch.tokens()), 3));
  auto const plan = plan_backward(layers, single_layer(2));
  adamw optimizer(backend, trained_parameters(model, plan), {.learning_rate = 0.01});
  frozen_copy reference(backend, model, plan);
  prefix_cache cache(model, plan, in_device_memory(backend));
  auto const prefix = cache.fill(model, tokens.view());
  for (int step = 0; step < 2; ++step) {
    train_step(backend, model, grpo{}, plan, prefix, tokens.view(), arrays.view(), outputs.view(),
               report, optimizer);
  }
  CHECK(!optimizer.read_status().skipped);
  CHECK(report.read(backend).metrics.active_tokens > 0);
  reference.check(model);
  auto const weights = [&] {
    std::vector<std::vector<T>> all;
    host_copy copy(backend, all_parameters(model));
    for (auto const& p : copy.parameters()) all.emplace_back(p.weight.begin(), p.weight.end());
    return all;
  };
  auto all = weights();
  reference.with(model, [&] {
    for (auto const& before : weights()) all.push_back(before);
  });
  return all;
}

}  // namespace

TEST_CASE_TEMPLATE("train_step on CUDA: the steps of the simulated device", T, float, bf16) {
  owned_stream const stream;
  check_close(trained_weights<cuda, T>(cuda(stream)), trained_weights<simulated, T>(simulated{}));
}
