// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/task_code.hpp"

#include "examples/task_laws.hpp"

using namespace layer_sweep;
using layer_sweep::testing::reward_of;
using task = code_task;

TEST_CASE("stack machine: operations worked by hand, modulo 100") {
  auto const top_after = [](int x, int y, operation op) {
    stack_machine machine(x, y);
    REQUIRE(machine.apply(op));
    return machine.top();
  };
  CHECK(top_after(7, 5, operation::add) == 12);
  CHECK(top_after(7, 5, operation::subtract) == 2);
  CHECK(top_after(5, 7, operation::subtract) == 98);
  CHECK(top_after(7, 5, operation::multiply) == 35);
  CHECK(top_after(7, 5, operation::duplicate) == 5);
  CHECK(top_after(7, 5, operation::swap) == 7);
  CHECK(top_after(7, 5, operation::increment) == 6);
  CHECK(top_after(50, 50, operation::add) == 0);
  CHECK(top_after(0, 99, operation::increment) == 0);
}

TEST_CASE("stack machine: too few values or too little room is illegal and changes nothing") {
  stack_machine machine(3, 4);
  REQUIRE(machine.apply(operation::add));
  for (operation const op :
       {operation::add, operation::subtract, operation::multiply, operation::swap}) {
    CHECK_FALSE(machine.apply(op));
  }
  CHECK(machine.top() == 7);
  CHECK(machine.size() == 1);
  for (int i = 0; i < 5; ++i) CHECK(machine.apply(operation::duplicate));
  CHECK_FALSE(machine.apply(operation::duplicate));
  CHECK(machine.size() == stack_machine::capacity);
}

TEST_CASE("stack machine: swap exchanges, and duplicate then multiply squares") {
  stack_machine machine(2, 9);
  REQUIRE(machine.apply(operation::swap));
  REQUIRE(machine.apply(operation::subtract));
  CHECK(machine.top() == 7);
  REQUIRE(machine.apply(operation::duplicate));
  REQUIRE(machine.apply(operation::multiply));
  CHECK(machine.top() == 49);
}

TEST_CASE("stack machine: targets one operation away from [3, 4]") {
  static_assert(reachable_in_one(3, 4, 4));   // already there
  static_assert(reachable_in_one(3, 4, 7));   // +
  static_assert(reachable_in_one(3, 4, 99));  // -
  static_assert(reachable_in_one(3, 4, 12));  // *
  static_assert(reachable_in_one(3, 4, 3));   // SWAP
  static_assert(reachable_in_one(3, 4, 5));   // INC
  static_assert(!reachable_in_one(3, 4, 8));
  int reachable = 0;
  for (int target = 0; target < 100; ++target) reachable += reachable_in_one(3, 4, target);
  CHECK(reachable == 6);
}

TEST_CASE("code: different programs for one target are right") {
  task::prompt const p{3, 4, 8};  // 3 + 4 + 1 = 4 + 4
  CHECK(to_text<task>(task::encode(p)) == "3 4 > 0 8 :");
  CHECK(reward_of<task>(p, "+ INC HALT") == 1);
  CHECK(reward_of<task>(p, "INC + HALT") == 1);
  CHECK(reward_of<task>(p, "DUP + HALT") == 1);
  CHECK(reward_of<task>(p, "SWAP + INC HALT") == 1);
}

TEST_CASE("code: a program that computes something else, or does not halt, gets nothing") {
  task::prompt const p{3, 4, 8};
  CHECK(reward_of<task>(p, "HALT") == 0);
  CHECK(reward_of<task>(p, "+ HALT") == 0);
  CHECK(reward_of<task>(p, "+ INC") == -1);
  CHECK(reward_of<task>(p, "INC + DUP DUP HALT") == 1);
  CHECK(reward_of<task>(p, "INC + DUP DUP DUP") == 0);
}

TEST_CASE("code: an illegal operation ends the episode") {
  task::prompt const p{3, 4, 8};
  CHECK(reward_of<task>(p, "+ +") == 0);
  CHECK(reward_of<task>(p, "+ SWAP") == 0);
  CHECK(reward_of<task>(p, "3") == 0);
  CHECK(reward_of<task>(p, "DUP >") == 0);
}

TEST_CASE("code: no prompt is solved by halting at once or after one operation") {
  for (index_t index = 0; index < 500; ++index) {
    auto const p = task::training_prompt(1, 0, index);
    REQUIRE_FALSE(reachable_in_one(p.x, p.y, p.target));
  }
  for (auto const& p : task::evaluation_prompts()) {
    REQUIRE_FALSE(reachable_in_one(p.x, p.y, p.target));
  }
}

TEST_CASE("code: every demonstration is a legal program, and about 15 % miss their target") {
  int right = 0;
  int const n = 5000;
  for (index_t index = 0; index < n; ++index) {
    auto const tokens = task::demonstrate(2, index).tokens;
    task::episode episode({tokens[0], tokens[1], 10 * tokens[3] + tokens[4]});
    for (std::size_t t = task::prompt_length; t < tokens.size(); ++t) {
      REQUIRE_FALSE(episode.done());
      episode.accept(tokens[t]);
    }
    REQUIRE(tokens.back() == task::halt);
    right += episode.reward() == 1;
  }
  // Unrelated programs hit the target now and then.
  CHECK(static_cast<double>(right) / n > 0.85);
  CHECK(static_cast<double>(right) / n < 0.89);
}

TEST_CASE("code: held-out problems are never trained on; draws depend on their counter") {
  testing::check_split<task>();
  CHECK(testing::leaked_demonstrations<task>(5000) == 0);
  testing::check_determinism<task>();
  testing::check_shapes<task>();
}
