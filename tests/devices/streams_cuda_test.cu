// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Several streams, host threads and devices at once, and graphs: a policy that is trained beside
// another is the policy trained alone, bit for bit.
#include <cmath>
#include <future>
#include <tuple>
#include <utility>
#include <vector>

#include "lamina/backend/cuda.cuh"
#include "lamina/optim/adamw.hpp"
#include "lamina/policy/presets.hpp"
#include "tests/support/device.cuh"
#include "tests/support/device_batch.hpp"

using namespace lamina;
using namespace lamina::testing;
using ::testing::check;
using ::testing::owned_stream;

namespace {

// Makes a device the current one of the thread.
struct device_choice {
  int device;
  explicit device_choice(int number) : device(number) { use(); }
  void use() const { check(cudaSetDevice(device)); }
};

// A policy that is linear in given states, on a stream of its own: states times weights make
// logits, a loss turns them into gradients, and those of the weights move the weights. Rows of the
// two policies want different amounts of memory on the chip from the same kernel.
class linear_policy {
 public:
  linear_policy(int device, int seed)
      : device_(device),
        backend_(stream_),
        vocab_(seed == 1 ? 100'003 : 151'937),
        host_(drawn_batch(seed, vocab_)),
        tokens_(host_.tokens()),
        batch_(backend_, host_),
        outputs_(backend_, tokens_, true),
        report_(backend_, 3),
        states_(on_device(backend_, drawn(seed + 10, tokens_ * width))),
        weights_(on_device(backend_, drawn(seed + 20, vocab_ * width))),
        d_weights_(backend_, vocab_ * width),
        logits_(backend_, tokens_ * vocab_),
        optimizer_(backend_,
                   {{.name = "weights", .weight = weights_.view(), .gradient = d_weights_.view()}},
                   {.learning_rate = 0.01}) {}
  // Memory goes back where it came from.
  ~linear_policy() { cudaSetDevice(device_.device); }

  // Waits for nothing.
  void step() {
    device_.use();
    matrix_view<float const> const states(states_.view().data, tokens_, width);
    matrix_view<float const> const weights(weights_.view().data, vocab_, width);
    matrix_view<float> const logits(logits_.view().data, tokens_, vocab_);
    matrix_view<float> const d_weights(d_weights_.view().data, vocab_, width);
    backend_.gemm(transpose::no, transpose::yes, 1.0f, states, weights, 0.0f, logits);
    policy_loss(backend_, grpo{}, logits, batch_.view(), outputs_.view(), report_);
    backend_.gemm(transpose::yes, transpose::no, 1.0f, logits, states, 0.0f, d_weights);
    optimizer_.step();
  }
  // Waits.
  auto results() const {
    device_.use();
    CHECK(!optimizer_.read_status().skipped);
    return std::tuple(weights_.to_host(backend_), d_weights_.to_host(backend_),
                      outputs_.log_probs.to_host(backend_), outputs_.entropies.to_host(backend_),
                      numbers_of(report_.read(backend_)));
  }

  cudaStream_t stream() const { return stream_; }

 private:
  static constexpr index_t width = 8;

  static std::vector<float> drawn(int seed, index_t count) {
    counter_generator random(static_cast<std::uint64_t>(seed));
    std::vector<float> values;
    for (index_t i = 0; i < count; ++i) {
      values.push_back(static_cast<float>(random.uniform() - 0.5));
    }
    return values;
  }
  // Log-probs near those of the logits.
  static owned_batch<float> drawn_batch(int seed, index_t vocab) {
    counter_generator random(static_cast<std::uint64_t>(seed));
    auto batch = random_batch_of<float>(random, {9, 1, 14}, vocab);
    batch.advantages = {0.7f, -1.0f, 1.1f};
    float const shift = static_cast<float>(std::log(static_cast<double>(vocab))) - 1.5f;
    for (float& value : batch.old_log_probs) value -= shift;
    return batch;
  }

  device_choice device_;  // before anything is made on it
  owned_stream stream_;
  cuda_backend<float> backend_;
  index_t vocab_;
  owned_batch<float> host_;
  index_t tokens_;
  device_batch<cuda_backend<float>, float> batch_;
  device_outputs<cuda_backend<float>, float> outputs_;
  policy_report<cuda_backend<float>> report_;
  device_vector<cuda_backend<float>, float> states_, weights_, d_weights_, logits_;
  adamw<cuda_backend<float>, float> optimizer_;
};

constexpr int steps = 5;

auto alone(int device, int seed) {
  linear_policy policy(device, seed);
  for (int i = 0; i < steps; ++i) policy.step();
  return policy.results();
}

// Where the second of two policies runs: beside the first, and on a second device if there is one.
std::vector<int> second_devices() {
  int count = 0;
  check(cudaGetDeviceCount(&count));
  if (count > 1) return {0, 1};
  MESSAGE("there is one device: nothing has run on two at once");
  return {0};
}

}  // namespace

TEST_CASE("two streams: steps that one thread asks for by turns are those of each alone") {
  for (int const device : second_devices()) {
    auto const first = alone(0, 1), second = alone(device, 2);
    linear_policy a(0, 1), b(device, 2);
    auto const at_first = a.results();
    for (int i = 0; i < steps; ++i) {
      a.step();
      b.step();
    }
    CHECK(b.results() == second);
    CHECK(a.results() == first);
    CHECK(std::get<0>(first) != std::get<0>(at_first));
  }
}

TEST_CASE("two streams: steps that two threads ask for are those of each alone") {
  for (int const device : second_devices()) {
    auto const first = alone(0, 1), second = alone(device, 2);
    for (int i = 0; i < 3; ++i) {
      auto other = std::async(std::launch::async, [device] { return alone(device, 2); });
      CHECK(alone(0, 1) == first);
      CHECK(other.get() == second);
    }
  }
}

TEST_CASE("graphs: products, a loss and an optimizer's step, replayed, are as many steps") {
  linear_policy policy(0, 2);
  auto const expected = alone(0, 2);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamBeginCapture(policy.stream(), cudaStreamCaptureModeThreadLocal));
  policy.step();
  check(cudaStreamEndCapture(policy.stream(), &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  for (int i = 0; i < steps; ++i) check(cudaGraphLaunch(executable, policy.stream()));
  CHECK(policy.results() == expected);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}
