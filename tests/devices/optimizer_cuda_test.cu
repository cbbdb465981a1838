// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Optimizers, training steps, references and prefixes on a CUDA device: the optimizer's numbers are
// the host's, and a graph replays its step under a schedule.
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

using namespace lamina;
using namespace lamina::testing;
using ::testing::check;
using ::testing::owned_stream;

// A host without Eigen, which nvcc would take long to read; optimizers multiply no matrices.
struct plain_host {
  using scalar_type = float;
  struct matrix_type {
    index_t rows, cols;
    std::vector<float> values;
  };
  matrix_type make_matrix(index_t rows, index_t cols) const {
    return {rows, cols, std::vector<float>(static_cast<std::size_t>(rows * cols))};
  }
  static matrix_view<float> view(matrix_type& m) { return {m.values.data(), m.rows, m.cols}; }
  static matrix_view<float const> view(matrix_type const& m) {
    return {m.values.data(), m.rows, m.cols};
  }
  host_rows<> executor() const { return {}; }
  void gemm(transpose, transpose, float, matrix_view<float const>, matrix_view<float const>, float,
            matrix_view<float>) const {}
};

namespace {

using real_device = cuda_backend<float>;

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

// Fused multiply-adds and the order of sums differ: some units in the last place of a tensor's
// largest numbers (small ones are differences of such), which may turn a rounding to T.
template <class T>
void check_close(std::vector<std::vector<T>> const& found,
                 std::vector<std::vector<T>> const& expected) {
  double const tolerance = sizeof(T) == 2 ? 0x1p-8 : 1e-6;
  REQUIRE(found.size() == expected.size());
  for (std::size_t t = 0; t < found.size(); ++t) {
    REQUIRE(found[t].size() == expected[t].size());
    double worst = 0, largest = 0;
    for (std::size_t i = 0; i < found[t].size(); ++i) {
      double const a = static_cast<double>(found[t][i]), b = static_cast<double>(expected[t][i]);
      worst = std::fmax(worst, std::fabs(a - b));
      largest = std::fmax(largest, std::fabs(b));
    }
    CHECK(worst <= tolerance * largest);
  }
}

// The same run on a host and on the device.
template <class Make, class T>
void run_on_both() {
  owned_stream const stream;
  real_device const device(stream);
  auto host = tensors_of_many_sizes<T>();
  device_tensors tensors(device, host);
  auto optimizer = Make{}(device, tensors.parameters());
  auto reference = Make{}(plain_host{}, host.parameters());
  for (std::uint64_t step = 1; step <= 5; ++step) {
    host.draw_gradients(step);
    if (step == 3) host.tensors[4].gradient[17] = T(std::numeric_limits<float>::infinity());
    tensors.copy_gradients();
    optimizer.step();
    auto const wanted = reference.step(), found = optimizer.read_status();
    CHECK(found.skipped == (step == 3));
    CHECK(found.nonfinite_count == wanted.nonfinite_count);
    if (step == 3) continue;
    CHECK(found.gradient_norm == doctest::Approx(wanted.gradient_norm).epsilon(1e-13));
    CHECK(found.clip_scale == doctest::Approx(wanted.clip_scale).epsilon(1e-13));
  }
  check_close(tensors.weights(), host.weights());
  check_close(remembered(optimizer), remembered(reference));
  optimizer.rebind({tensors.parameters()[7]}, moments::keep);
  CHECK(optimizer.parked().size() == 7);
  CHECK(optimizer.state().step_count(0) == 4);
}

}  // namespace

TEST_CASE_TEMPLATE("adamw on CUDA: the run of the host", T, float, bf16) {
  run_on_both<make_adamw, T>();
}

TEST_CASE("sgd on CUDA: the run of the host") { run_on_both<make_sgd, float>(); }

TEST_CASE("gradient_norm on CUDA: the same bits every time, the host's number") {
  owned_stream const stream;
  real_device const device(stream);
  auto host = tensors_of_many_sizes<float>();
  device_tensors tensors(device, host);
  auto const first = gradient_norm(device, tensors.parameters());
  CHECK(first.norm ==
        doctest::Approx(gradient_norm(plain_host{}, host.parameters()).norm).epsilon(1e-13));
  gradient_norm_meter<real_device, float> meter(device, tensors.parameters());
  for (int i = 0; i < 10; ++i) {
    meter.run();
    CHECK(meter.read().norm == first.norm);
  }
}

TEST_CASE("a step in a CUDA graph: replayed under a schedule, the bits of steps one by one") {
  owned_stream const stream;
  real_device const device(stream);
  auto host = tensors_of_many_sizes<float>(), twin = tensors_of_many_sizes<float>();
  device_tensors tensors(device, host);
  device_tensors twins(device, twin);
  auto optimizer = make_adamw{}(device, tensors.parameters());
  auto one_by_one = make_adamw{}(device, twins.parameters());
  device_vector<real_device, double> rate(device, 1);
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

TEST_CASE_TEMPLATE("train_step on CUDA: one layer moves by the learning rate, none else by a bit",
                   T, float, bf16) {
  index_t const vocab = 6, layers = 4;
  owned_stream const stream;
  real_device const backend(stream);
  minimal_model<float> host(layers, vocab);
  device_model<real_device, T> model(backend, host, vocab);
  auto const batch = random_batch<float>(17, 8, vocab);
  device_batch<real_device, float> arrays(backend, batch);
  device_outputs<real_device, float> outputs(backend, batch.tokens(), false);
  policy_report<real_device> report(backend, 8);
  auto const tokens =
      on_device(backend, std::vector<std::int32_t>(static_cast<std::size_t>(batch.tokens()), 3));
  auto const plan = plan_backward(layers, single_layer(2));
  auto const weights = [&] {
    std::vector<std::vector<T>> all;
    host_copy const copy(backend, all_parameters(model));
    for (auto const& p : copy.parameters()) all.emplace_back(p.weight.begin(), p.weight.end());
    return all;
  };
  auto const same = [](std::vector<T> const& a, std::vector<T> const& b) {
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (!same_bits(a[i], b[i])) return false;
    }
    return a.size() == b.size();
  };
  auto const before = weights();
  adamw optimizer(backend, trained_parameters(model, plan),
                  {.learning_rate = 0.125, .weight_decay = 0});
  frozen_copy reference(backend, model, plan);
  prefix_cache cache(model, plan, in_device_memory(backend));
  auto const prefix = cache.fill(model, tokens.view());
  train_step(backend, model, grpo{}, plan, prefix, tokens.view(), arrays.view(), outputs.view(),
             report, optimizer);
  CHECK(!optimizer.read_status().skipped);
  CHECK(report.read(backend).metrics.active_tokens == batch.denominators.tokens);
  auto const after = weights();
  std::size_t const trained = 3;  // behind the embedding and two layers
  for (std::size_t t = 0; t < after.size(); ++t) {
    if (t != trained) CHECK(same(after[t], before[t]));
  }
  for (std::size_t i = 0; i < after[trained].size(); ++i) {
    double const move =
        static_cast<double>(after[trained][i]) - static_cast<double>(before[trained][i]);
    CHECK(std::fabs(move) == doctest::Approx(0.125).epsilon(0.02));
  }
  reference.check(model);
  reference.with(model, [&] { CHECK(same(weights()[trained], before[trained])); });
  CHECK(same(weights()[trained], after[trained]));
}
