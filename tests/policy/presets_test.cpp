// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/presets.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace lamina;

TEST_CASE("presets carry the defaults of their papers") {
  grpo const g{};
  CHECK(g.surrogate.clip_low == 0.2);
  CHECK(g.surrogate.clip_high == 0.2);
  CHECK_FALSE(g.kl.active());
  CHECK_NOTHROW(g.check());
  static_assert(std::is_same_v<decltype(g.aggregation), sequence_mean_token_mean>);
  static_assert(std::is_same_v<decltype(dr_grpo{}.advantage.scale), no_scale>);
  CHECK_THROWS_AS(dr_grpo{}.check(), config_error);
  CHECK_NOTHROW(dr_grpo{.aggregation = {.length = 3000}}.check());
}

TEST_CASE("a preset is an aggregate: every member is set by name") {
  grpo const g{.surrogate = {.clip_low = 0.2, .clip_high = 0.28}, .kl = {.coefficient = 0.001}};
  CHECK(g.surrogate.clip_high == 0.28);
  CHECK(g.kl.active());
  std::vector<float> const rewards{1, 0, 0, 0};
  auto const a = g.advantages(rewards, prompt_groups::uniform(4, 4));
  CHECK(a.values[0] == doctest::Approx(1.5).epsilon(1e-5));
  CHECK(a.statistics.reward_mean == 0.25);
}
