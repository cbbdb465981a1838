// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/task_math.hpp"

#include "examples/task_laws.hpp"

using namespace layer_sweep;
using layer_sweep::testing::reward_of;
using task = math_task;

TEST_CASE("math: 47 + 85 = 132 is answered 2 3 1, and nothing else is right") {
  task::prompt const p{47, 85};
  CHECK(to_text<task>(task::encode(p)) == "4 7 + 8 5 =");
  CHECK(to_text<task>(task::answer(p)) == "2 3 1");
  CHECK(to_text<task>(task::answer_without_carry(p)) == "2 2 0");
  CHECK(reward_of<task>(p, "2 3 1") == 1);
  CHECK(reward_of<task>(p, "2 2 0") == 0);
  CHECK(reward_of<task>(p, "1 3 2") == 0);
  CHECK(reward_of<task>(p, "2 3 0") == 0);
  CHECK(reward_of<task>(p, "2 3 =") == 0);
}

TEST_CASE("math: an episode is three tokens long whatever they are") {
  CHECK(reward_of<task>({47, 85}, "2 3") == -1);
  CHECK(reward_of<task>({47, 85}, "9 9 9") == 0);
  CHECK(reward_of<task>({47, 85}, "2 3 1 1") == -1);
}

TEST_CASE("math: small operands are padded and carries reach the third digit") {
  CHECK(to_text<task>(task::encode({0, 7})) == "0 0 + 0 7 =");
  CHECK(to_text<task>(task::answer({0, 7})) == "7 0 0");
  CHECK(to_text<task>(task::answer({99, 99})) == "8 9 1");
  CHECK(to_text<task>(task::answer_without_carry({99, 99})) == "8 8 0");
}

TEST_CASE("math: 3025 of the 10000 pairs have no carry, so both procedures agree on 30 %") {
  // 55 digit pairs do not exceed 9: 55 * 55.
  int agree = 0;
  for (int a = 0; a < 100; ++a) {
    for (int b = 0; b < 100; ++b)
      agree += task::answer({a, b}) == task::answer_without_carry({a, b});
  }
  CHECK(agree == 3025);
}

TEST_CASE("math: the split is by the unordered pair and holds out about a fifth") {
  for (int a = 0; a < 100; ++a) {
    for (int b = 0; b < a; ++b) REQUIRE(task::held_out({a, b}) == task::held_out({b, a}));
  }
  auto const held_out = task::evaluation_prompts().size();
  CHECK(held_out > 1800);
  CHECK(held_out < 2200);
}

TEST_CASE("math: held-out pairs are never trained on, in either order") {
  testing::check_split<task>();
  CHECK(testing::leaked_demonstrations<task>(5000) == 0);
}

TEST_CASE("math: 54.5 % of the demonstrations are right") {
  int right = 0;
  int const n = 20000;
  for (index_t index = 0; index < n; ++index) {
    auto const t = task::demonstrate(2, index).tokens;
    int const sum = 10 * t[0] + t[1] + 10 * t[3] + t[4];
    right += t[6] + 10 * t[7] + 100 * t[8] == sum;
  }
  CHECK(static_cast<double>(right) / n == doctest::Approx(0.545).epsilon(0.03));
}

TEST_CASE("math: draws depend on their counter, lengths hold") {
  testing::check_determinism<task>();
  testing::check_shapes<task>();
}
