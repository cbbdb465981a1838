// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The example's training on a simulated device: the reward rises, and only the layer moves.
#include <doctest/doctest.h>

#include "examples/cuda_step/selective_training.hpp"
#include "lamina/backend/eigen.hpp"
#include "tests/support/simulated_device.hpp"

using lamina::index_t;

TEST_CASE("cuda_step: rollouts become inputs, targets and the share of the token, by any lanes") {
  std::vector<std::int32_t> tokens{1, 3, 3, 0, 2, 5, 3, 7};
  std::vector<float> log_probs{9, -1, -2, -3, 9, -4, -5, -6};
  std::vector<std::int32_t> inputs(6), chosen(6);
  std::vector<float> old_log_probs(6), rewards(2);
  decoder::growing_rollouts rollouts;
  rollouts.tokens = {tokens.data(), 2, 4};
  rollouts.log_probs = {log_probs.data(), 2, 4};
  lamina::testing::threaded_rows{3}.run(
      2, cuda_step::place_and_score{rollouts, 3, inputs, chosen, old_log_probs, rewards});
  CHECK(inputs == std::vector<std::int32_t>{1, 3, 3, 2, 5, 3});
  CHECK(chosen == std::vector<std::int32_t>{3, 3, 0, 5, 3, 7});
  CHECK(old_log_probs == std::vector<float>{-1, -2, -3, -4, -5, -6});
  CHECK(rewards == std::vector<float>{2 / 3.0f, 1 / 3.0f});
}

TEST_CASE_TEMPLATE("cuda_step: a selected layer learns on a device, the rest stays", Weight, float,
                   lamina::bf16) {
  using device = lamina::testing::simulated_device<float>;
  cuda_step::settings const settings{.shape = {.layer_count = 2,
                                               .width = 16,
                                               .head_count = 2,
                                               .kv_head_count = 1,
                                               .head_width = 8,
                                               .ffn_width = 16,
                                               .vocab = 8},
                                     .layer = 1,
                                     .prompt_count = 4,
                                     .max_length = 6,
                                     .learning_rate = 0.03};
  cuda_step::selective_training<device, Weight> training(device{}, settings);
  decoder::transformer<lamina::eigen_backend<float>, Weight> before({}, settings.shape),
      after({}, settings.shape);
  before.copy_weights(training.model());
  auto const one_by_one = [](index_t count, auto const& step) {
    for (index_t i = 0; i < count; ++i) step();
  };
  double first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    training.step(one_by_one);
    cuda_step::outcome const result = training.read();
    if (step < 4) first += result.reward / 4;
    if (step >= 16) last += result.reward / 4;
    if (step == 0) {
      CHECK(result.policy.metrics.ratio_mean == doctest::Approx(1).epsilon(1e-4));
      CHECK(result.optimizer.gradient_norm > 0);
    }
  }
  CHECK(last > first + 0.08);
  after.copy_weights(training.model());
  for (index_t layer = lamina::outside_layers; layer < 2; ++layer) {
    auto const a = before.block(layer).weights(), b = after.block(layer).weights();
    bool const same = std::equal(a.begin(), a.end(), b.begin(), lamina::same_bits<Weight>);
    CHECK(same == (layer != settings.layer));
  }
}
