// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/task_agent.hpp"

#include "examples/task_laws.hpp"

using namespace layer_sweep;
using layer_sweep::testing::reward_of;
using task = agent_task;

TEST_CASE("grid: moves, edges and the wall") {
  static_assert(grid::after(0, move::right) == 1);
  static_assert(grid::after(0, move::down) == 4);
  static_assert(grid::after(10, move::up) == 6);
  static_assert(grid::after(10, move::left) == 9);
  static_assert(grid::after(0, move::up) == 0);
  static_assert(grid::after(0, move::left) == 0);
  static_assert(grid::after(3, move::right) == 3);
  static_assert(grid::after(15, move::down) == 15);
  // Cell 5 is the wall, from all four sides.
  static_assert(grid::after(1, move::down) == 1);
  static_assert(grid::after(4, move::right) == 4);
  static_assert(grid::after(6, move::left) == 6);
  static_assert(grid::after(9, move::up) == 9);
}

TEST_CASE("grid: distances go round the wall") {
  static_assert(grid::distance(0, 0) == 0);
  static_assert(grid::distance(0, 15) == 6);
  static_assert(grid::distance(4, 6) == 4);  // 4 0 1 2 6
  static_assert(grid::distance(1, 9) == 4);
  for (int a = 0; a < grid::cell_count; ++a) {
    for (int b = 0; b < grid::cell_count; ++b) {
      if (a == grid::wall || b == grid::wall) continue;
      REQUIRE(grid::distance(a, b) == grid::distance(b, a));
      REQUIRE(grid::distance(a, b) <= 6);
    }
  }
}

TEST_CASE("agent: fetching the key and entering the goal is rewarded at once") {
  task::prompt const p{1, 3, 0};  // key c1, goal c3, start c0
  CHECK(to_text<task>(task::encode(p)) == "c1 c3 KEY c0 nokey");
  CHECK(reward_of<task>(p, "RIGHT RIGHT RIGHT") == 1);
  CHECK(reward_of<task>(p, "RIGHT RIGHT LEFT RIGHT RIGHT") == 1);
}

TEST_CASE("agent: the goal without the key is worth nothing") {
  task::prompt const p{3, 1, 0};  // the goal lies on the way to the key
  CHECK(reward_of<task>(p, "RIGHT") == -1);
  CHECK(reward_of<task>(p, "RIGHT RIGHT RIGHT LEFT LEFT") == 1);
}

TEST_CASE("agent: eight moves end the episode") {
  CHECK(reward_of<task>({1, 3, 0}, "UP UP UP UP UP UP UP") == -1);
  CHECK(reward_of<task>({1, 3, 0}, "UP UP UP UP UP UP UP UP") == 0);
  CHECK(reward_of<task>({1, 3, 0}, "UP UP UP UP UP RIGHT RIGHT RIGHT") == 1);
}

TEST_CASE("agent: a token that is no action ends the episode with nothing") {
  CHECK(reward_of<task>({1, 3, 0}, "c1") == 0);
  CHECK(reward_of<task>({1, 3, 0}, "RIGHT haskey") == 0);
  CHECK(reward_of<task>({1, 3, 0}, "KEY") == 0);
}

TEST_CASE("agent: the grid answers each action with the cell and the key, but not the last one") {
  task::episode episode({1, 3, 0});
  auto const act = [&episode](move direction) {
    return to_text<task>(episode.accept(task::first_action + static_cast<token_id>(direction)));
  };
  CHECK(act(move::up) == "c0 nokey");
  CHECK(act(move::right) == "c1 haskey");
  CHECK(act(move::down) == "c1 haskey");
  CHECK(act(move::right) == "c2 haskey");
  CHECK(act(move::right) == "");
  CHECK(episode.done());
}

TEST_CASE("agent: every problem can be solved in eight moves from three different free cells") {
  auto const prompts = task::evaluation_prompts();
  CHECK(prompts.size() > 400);
  CHECK(prompts.size() < 620);
  for (auto const& p : prompts) REQUIRE(task::solvable(p));
  CHECK_FALSE(task::solvable({5, 1, 2}));
  CHECK_FALSE(task::solvable({1, 1, 2}));
  CHECK_FALSE(task::solvable({15, 0, 0}));
  CHECK_FALSE(task::solvable({15, 0, 1}));  // 5 + 6 moves
}

TEST_CASE("agent: only actions are targets of a demonstration, observations follow the rules") {
  for (index_t index = 0; index < 300; ++index) {
    demonstration const shown = task::demonstrate(2, index);
    task::episode episode({shown.tokens[0], shown.tokens[1], shown.tokens[3]});
    std::size_t t = task::prompt_length;
    while (t < shown.tokens.size()) {
      REQUIRE(shown.targets[t] == 1);
      auto const observation = episode.accept(shown.tokens[t++]);
      for (token_id const token : observation) {
        REQUIRE(shown.targets[t] == 0);
        REQUIRE(shown.tokens[t++] == token);
      }
    }
    REQUIRE(episode.done());
  }
}

TEST_CASE("agent: held-out problems are never trained on; draws depend on their counter") {
  testing::check_split<task>();
  CHECK(testing::leaked_demonstrations<task>(5000) == 0);
  testing::check_determinism<task>();
  testing::check_shapes<task>();
}
