// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/task_chain.hpp"

#include "examples/task_laws.hpp"

using namespace layer_sweep;
using layer_sweep::testing::reward_of;
using task = chain_task;

namespace {
constexpr task::prompt example{3, 8, 0, 5, 9, 2};  // running sums 3 1 1 6 5 7
}

TEST_CASE("chain: the answer is right with a scratchpad, without one, and with a short one") {
  CHECK(to_text<task>(task::encode(example)) == "3 8 0 5 9 2 =");
  CHECK(task::sum(example) == 7);
  CHECK(reward_of<task>(example, "SCR 3 1 1 6 5 7 ANS 7") == 1);
  CHECK(reward_of<task>(example, "ANS 7") == 1);
  CHECK(reward_of<task>(example, "SCR ANS 7") == 1);
  CHECK(reward_of<task>(example, "SCR 9 9 ANS 7") == 1);
}

TEST_CASE("chain: a wrong digit after ANS gets nothing, and so does no digit") {
  CHECK(reward_of<task>(example, "SCR 3 1 1 6 5 7 ANS 5") == 0);
  CHECK(reward_of<task>(example, "ANS 6") == 0);
  CHECK(reward_of<task>(example, "ANS SCR") == 0);
  CHECK(reward_of<task>(example, "ANS ANS") == 0);
}

TEST_CASE("chain: a token where it does not belong ends the episode with reward 0") {
  CHECK(reward_of<task>(example, "7") == 0);
  CHECK(reward_of<task>(example, "=") == 0);
  CHECK(reward_of<task>(example, "SCR SCR") == 0);
  CHECK(reward_of<task>(example, "SCR 3 1 =") == 0);
}

TEST_CASE("chain: a scratchpad holds at most six digits") {
  CHECK(reward_of<task>(example, "SCR 3 1 1 6 5 7") == -1);
  CHECK(reward_of<task>(example, "SCR 3 1 1 6 5 7 7") == 0);
}

TEST_CASE("chain: the split does not depend on the order of the digits") {
  task::prompt sorted = example;
  std::sort(sorted.begin(), sorted.end());
  do {
    REQUIRE(task::held_out(sorted) == task::held_out(example));
  } while (std::next_permutation(sorted.begin(), sorted.end()));
  testing::check_split<task>();
  CHECK(testing::leaked_demonstrations<task>(5000) == 0);
}

TEST_CASE("chain: 70 % of the demonstrations have a scratchpad, 58 % of those are right") {
  // Right with probability 0.9 * P(right before) + 0.1 / 10 after the last digit, where a running
  // sum that is wrong stays wrong unless a slip happens to mend it:
  // p = 0.9 p + 0.01 six times from 1 gives 0.1 + 0.9 * 0.9^6 = 0.578.
  int with = 0, right = 0;
  int const n = 20000;
  for (index_t index = 0; index < n; ++index) {
    auto const tokens = task::demonstrate(2, index).tokens;
    task::prompt digits;
    std::copy_n(tokens.begin(), digits.size(), digits.begin());
    bool const correct = tokens.back() == task::sum(digits);
    if (tokens[7] == task::scratchpad) {
      ++with;
      right += correct;
    } else {
      REQUIRE(correct);
    }
  }
  CHECK(static_cast<double>(with) / n == doctest::Approx(0.7).epsilon(0.03));
  CHECK(static_cast<double>(right) / with == doctest::Approx(0.578).epsilon(0.03));
}

TEST_CASE("chain: draws depend on their counter, lengths hold") {
  testing::check_determinism<task>();
  testing::check_shapes<task>();
}
