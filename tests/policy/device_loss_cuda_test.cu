// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Policy losses on a CUDA device: log-probs, logits and hidden states, advantages, all of it in a
// captured graph, beside the same text run by one lane of the host.
#include "lamina/policy/device_loss.hpp"

#include <cmath>

#include "lamina/backend/cuda.cuh"
#include "lamina/policy/baseline_advantage.hpp"
#include "lamina/policy/combined_reward.hpp"
#include "lamina/policy/device_advantage.hpp"
#include "lamina/policy/device_hidden_loss.hpp"
#include "lamina/policy/optimal_token_baseline.hpp"
#include "lamina/policy/presets.hpp"
#include "lamina/policy/step_groups.hpp"
#include "lamina/policy/token_advantage.hpp"
#include "tests/support/device.cuh"
#include "tests/support/device_batch.hpp"
#include "tests/support/device_rewards.hpp"

using namespace lamina;
using namespace lamina::testing;
using ::testing::owned_stream;

// The host, with plain loops and no other library.
struct plain_host {
  using scalar_type = float;
  struct matrix_type {
    index_t rows, cols;
    std::vector<float> elements;
  };
  matrix_type make_matrix(index_t rows, index_t cols) const {
    return {rows, cols, std::vector<float>(static_cast<std::size_t>(rows * cols))};
  }
  static matrix_view<float> view(matrix_type& m) { return {m.elements.data(), m.rows, m.cols}; }
  static matrix_view<float const> view(matrix_type const& m) {
    return {m.elements.data(), m.rows, m.cols};
  }
  host_rows<> executor() const { return {}; }
  void gemm(transpose ta, transpose tb, float alpha, matrix_view<float const> a,
            matrix_view<float const> b, float beta, matrix_view<float> c) const {
    gemm_arguments<float> const g = make_gemm_arguments<float>(ta, tb, alpha, a, b, beta, c);
    for (index_t i = 0; i < g.rows; ++i) {
      for (index_t j = 0; j < g.cols; ++j) {
        double sum = 0;
        for (index_t k = 0; k < g.depth; ++k) {
          sum += static_cast<double>(ta == transpose::yes ? a(k, i) : a(i, k)) *
                 (tb == transpose::yes ? b(j, k) : b(k, j));
        }
        c(i, j) = static_cast<float>(alpha * sum + (beta == 0 ? 0.0 : double(beta) * c(i, j)));
      }
    }
  }
};
static_assert(host_backend<plain_host>);

namespace {

using bonus_grpo =
    policy_gradient<group_relative<>, token_ratio, ppo_clip, kl_penalty<>, token_mean,
                    importance_correction<>, top_entropy_filter, entropy_bonus<>>;

template <class Estimator>
Estimator with_options() {
  Estimator estimator{};
  if constexpr (requires { estimator.kl.coefficient; }) estimator.kl.coefficient = 0.05;
  if constexpr (requires { estimator.entropy.coefficient; }) estimator.entropy.coefficient = 0.02;
  if constexpr (requires { estimator.filter.threshold; }) estimator.filter.threshold = 0.5;
  if constexpr (requires { estimator.aggregation.length; }) estimator.aggregation.length = 64;
  return estimator;
}

template <class T>
std::vector<T> random_values(index_t count, std::uint64_t seed, double size) {
  counter_generator random(seed);
  std::vector<T> values;
  for (index_t i = 0; i < count; ++i) {
    values.push_back(static_cast<T>(static_cast<float>(size * (2 * random.uniform() - 1))));
  }
  return values;
}

// Sequences of very different lengths, log-probs near those of the logits.
owned_batch<float> ragged_batch(index_t vocab) {
  counter_generator random(7);
  auto batch = random_batch_of<float>(random, {50, 0, 3, 300, 1}, vocab);
  batch.advantages = {0.7f, -1.0f, -1.3f, 1.1f, 0.2f};
  batch.group_offsets = {0, 2, 5};
  batch.denominators.groups = 2;
  float const shift = static_cast<float>(std::log(static_cast<double>(vocab))) - 1.5f;
  for (auto* values :
       {&batch.old_log_probs, &batch.reference_log_probs, &batch.rollout_log_probs}) {
    for (float& value : *values) value -= shift;
  }
  return batch;
}

struct host_outputs {
  std::vector<float> log_probs, d_log_probs, entropies, d_entropies;
  explicit host_outputs(index_t tokens)
      : log_probs(static_cast<std::size_t>(tokens)),
        d_log_probs(log_probs),
        entropies(log_probs),
        d_entropies(log_probs) {}
  policy_outputs<float> view() { return {log_probs, d_log_probs, entropies, d_entropies}; }
};

// Device memory is compared with the host's: a coefficient may differ by rounding alone.
template <class Device>
void check_outputs(Device& found, host_outputs const& expected,
                   cuda_backend<float> const& backend) {
  CHECK(first_difference(found.log_probs.to_host(backend), expected.log_probs, 2e-5) == -1);
  CHECK(first_difference(found.d_log_probs.to_host(backend), expected.d_log_probs, 1e-4) == -1);
  CHECK(first_difference(found.entropies.to_host(backend), expected.entropies, 2e-5) == -1);
  CHECK(first_difference(found.d_entropies.to_host(backend), expected.d_entropies, 1e-4) == -1);
}

template <class T, class Estimator>
void compare_logits() {
  auto const estimator = with_options<Estimator>();
  for (index_t const vocab : {301, 40'000}) {
    auto const batch = ragged_batch(vocab);
    index_t const tokens = batch.tokens();
    auto logits = random_values<T>(tokens * vocab, 3, 2.0);
    owned_stream const stream;
    cuda_backend<float> const backend(stream);
    using backend_type = cuda_backend<float>;
    device_batch<backend_type, float> arrays(backend, batch);
    device_outputs<backend_type, float> outputs(backend, tokens, true);
    auto on = on_device(backend, logits);
    policy_report report(backend, 8);
    policy_loss(backend, estimator, matrix_view<T>(on.view().data, tokens, vocab), arrays.view(),
                outputs.view(), report);

    host_outputs expected(tokens);
    auto const host =
        policy_loss(plain_host{}, estimator, matrix_view<T>(logits.data(), tokens, vocab),
                    batch.view(), expected.view());
    CHECK(first_difference(numbers_of(report.read(backend)), numbers_of(host), 1e-4) == -1);
    check_outputs(outputs, expected, backend);
    double const storage = sizeof(T) == 2 ? 1e-2 : 1e-4;
    CHECK(first_difference(on.to_host(backend), logits, storage) == -1);
  }
}

template <bool Trained, class T, class Estimator>
void compare_hidden() {
  auto const estimator = with_options<Estimator>();
  index_t const vocab = 1001, width = 64;
  auto const batch = ragged_batch(vocab);
  index_t const tokens = batch.tokens();
  auto hidden = random_values<T>(tokens * width, 3, 1.0);
  auto const head = random_values<T>(vocab * width, 5, 0.3);
  std::vector<float> d_head(head.size());
  owned_stream const stream;
  cuda_backend<float> const backend(stream);
  using backend_type = cuda_backend<float>;
  device_batch<backend_type, float> arrays(backend, batch);
  device_outputs<backend_type, float> outputs(backend, tokens, true);
  host_outputs expected(tokens);
  auto on = on_device(backend, hidden), on_head = on_device(backend, head);
  auto on_d_head = on_device(backend, d_head);
  policy_report report(backend, 8);
  auto const run = [&](matrix_view<T> states, matrix_view<T const> weights,
                       matrix_view<float> d_weights, auto const& loss) {
    if constexpr (Trained) {
      return loss(hidden_states<T>{states, states}, trained_head<T>{weights, d_weights});
    } else {
      return loss(hidden_states<T>{states, states}, frozen_head<T>{weights});
    }
  };
  run({on.view().data, tokens, width}, {on_head.view().data, vocab, width},
      {on_d_head.view().data, vocab, width}, [&](auto const& states, auto const& weights) {
        device_vector<backend_type, float> scratch(
            backend, device_hidden_scratch_size(backend, states, weights, 100 * vocab * 4));
        policy_loss(backend, estimator, states, weights, arrays.view(), outputs.view(),
                    scratch.view(), report);
        return policy_result{};
      });
  auto const host = run(
      {hidden.data(), tokens, width}, {head.data(), vocab, width}, {d_head.data(), vocab, width},
      [&](auto const& states, auto const& weights) {
        std::vector<float> scratch(static_cast<std::size_t>(hidden_scratch_size(states, weights)));
        return policy_loss(plain_host{}, estimator, states, weights, batch.view(), expected.view(),
                           vector_view<float>(scratch));
      });
  CHECK(first_difference(numbers_of(report.read(backend)), numbers_of(host), 1e-4) == -1);
  check_outputs(outputs, expected, backend);
  double const gradients = sizeof(T) == 2 ? 3e-2 : 1e-3;
  CHECK(first_difference(on.to_host(backend), hidden, gradients) == -1);
  CHECK(first_difference(on_d_head.to_host(backend), d_head, gradients) == -1);
}

template <class Rule>
void compare_advantages(Rule const& rule, owned_rewards<float> const& batch) {
  index_t const rollouts = batch.groups.rollout_count();
  index_t const count = Rule::per_token ? batch.offsets.back() : rollouts;
  std::vector<float> expected(static_cast<std::size_t>(count));
  advantage_statistics const host = rule.compute(batch.view(), vector_view<float>(expected));
  owned_stream const stream;
  cuda_backend<float> const backend(stream);
  uploaded_rewards<cuda_backend<float>, float> arrays(backend, batch);
  device_vector<cuda_backend<float>, float> values(backend, count);
  advantage_report report(backend, rollouts, count);
  compute_advantages(backend, rule, arrays.view(), values.view(), report);
  advantage_statistics const found = report.read(backend);
  CHECK(found.zero_spread_groups == host.zero_spread_groups);
  CHECK(found.missing_rewards == host.missing_rewards);
  CHECK(std::abs(found.reward_std - host.reward_std) < 1e-9);
  CHECK(first_difference(values.to_host(backend), expected, 1e-5) == -1);
}

}  // namespace

TEST_CASE("logits of float and bf16 become gradients on a device as on the host") {
  compare_logits<float, grpo>();
  compare_logits<bf16, grpo>();
  compare_logits<bf16, bonus_grpo>();
  compare_logits<float, gspo>();
  compare_logits<bf16, vespo>();
  compare_logits<bf16, deepseek_v32>();
  compare_logits<float, conspo>();
}

TEST_CASE("hidden states become gradients over cuBLAS") {
  compare_hidden<false, bf16, grpo>();
  compare_hidden<true, bf16, grpo>();
  compare_hidden<false, float, gspo>();
  compare_hidden<true, f16, gspo>();
}

TEST_CASE("advantages of every kind are the host's") {
  auto batch = ragged_batch<float>();
  compare_advantages(group_relative<>{}, batch);
  compare_advantages(leave_one_out<batch_whitening>{}, batch);
  compare_advantages(length_weighted_baseline{}, batch);
  compare_advantages(compensated_group_mean{}, batch);
  compare_advantages(second_best<>{}, batch);
  compare_advantages(greedy_outcome_baseline{}, batch);
  compare_advantages(decoupled_group_relative<>{}, batch);
  compare_advantages(weighted_rewards<>{}, batch);
  compare_advantages(summed_token_rewards<>{}, batch);
  compare_advantages(token_whitened<group_relative<no_scale>>{}, batch);
  compare_advantages(reward_to_go<>{.gamma = 0.9}, batch);
  compare_advantages(greedy_baseline{}, batch);
  compare_advantages(gae<>{.gamma = 0.9, .lambda = 0.8}, batch);
  compare_advantages(optimal_token_baseline{}, batch);
  compare_advantages(group_in_group<>{}, episodes<float>());
}

TEST_CASE("rewards become advantages, advantages gradients, all of it in one captured graph") {
  owned_stream const stream;
  cuda_backend<float> const backend(stream);
  using backend_type = cuda_backend<float>;
  index_t const vocab = 513;
  counter_generator random(3);
  auto const batch = random_batch_of<float>(random, {20, 30, 40, 10}, vocab);
  index_t const tokens = batch.tokens();
  std::vector<float> const rewards{1, 0, 0.5f, 0.25f};
  auto const logits = random_values<bf16>(tokens * vocab, 3, 2.0);
  device_batch<backend_type, float> arrays(backend, batch);
  device_outputs<backend_type, float> outputs(backend, tokens, false);
  auto on = on_device(backend, logits), fresh = on_device(backend, logits);
  auto const on_rewards = on_device(backend, rewards);
  policy_report report(backend, 4);
  advantage_report statistics(backend);
  auto const step = [&] {
    backend.copy(on.view().data, fresh.view().data, logits.size() * sizeof(bf16));
    compute_advantages(backend, leave_one_out<>{},
                       {.rewards = on_rewards.view(), .groups = group_view::uniform(4, 2)},
                       arrays.advantages.view(), statistics);
    policy_loss(backend, grpo{}, matrix_view<bf16>(on.view().data, tokens, vocab), arrays.view(),
                outputs.view(), report);
  };
  step();
  auto const once = numbers_of(report.read(backend));
  auto const gradients = on.to_host(backend);
  CHECK(statistics.read(backend).group_count == 2);
  std::vector<float> const expected{1, -1, 0.25f, -0.25f};
  CHECK(first_difference(arrays.advantages.to_host(backend), expected, 1e-6) == -1);

  cudaGraph_t graph{};
  cudaGraphExec_t replay{};
  ::testing::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  step();
  ::testing::check(cudaStreamEndCapture(stream, &graph));
  ::testing::check(cudaGraphInstantiate(&replay, graph, 0));
  for (int i = 0; i < 2; ++i) ::testing::check(cudaGraphLaunch(replay, stream));
  CHECK(numbers_of(report.read(backend)) == once);
  auto const again = on.to_host(backend);
  bool same = true;
  for (std::size_t i = 0; i < again.size(); ++i) same = same && again[i].bits == gradients[i].bits;
  CHECK(same);
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
}
