// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Task "agent": fetch a key and carry it to a goal, one action token a turn; the grid answers each
// action with observation tokens that the policy does not choose and is not trained on.
#pragma once

#include <array>

#include "examples/layer_sweep/grid.hpp"
#include "examples/layer_sweep/task.hpp"

namespace layer_sweep {

/// Prompt `key goal KEY start nokey`, then turns of one action and two observations (cell, key or
/// not). Reward 1 iff the goal is entered with the key within eight moves; a token that is no
/// action ends the episode with reward 0. Only problems that eight moves can solve are posed.
///
/// Demonstrations follow a shortest way, except that every other action is a random one.
struct agent_task {
  static constexpr std::string_view name = "agent";
  static constexpr training_recipe recipe{
      .pretraining_steps = 600, .steps = 60, .learning_rate = 1e-3};
  static constexpr std::array<std::string_view, 23> vocabulary{
      "c0",  "c1",  "c2",  "c3",  "c4", "c5",   "c6",   "c7",    "c8",  "c9",    "c10",   "c11",
      "c12", "c13", "c14", "c15", "UP", "DOWN", "LEFT", "RIGHT", "KEY", "nokey", "haskey"};
  static constexpr token_id first_action = 16, key_mark = 20, no_key = 21, has_key = 22;
  static constexpr index_t prompt_length = 5;
  static constexpr int max_moves = 8;
  static constexpr index_t max_length = prompt_length + 3 * max_moves - 2;
  static constexpr index_t response_length = max_length - prompt_length;
  static constexpr double random_actions = 0.5;

  struct prompt {
    int key = 0;
    int goal = 0;
    int start = 0;
    friend bool operator==(prompt const&, prompt const&) = default;
  };

  static std::vector<token_id> encode(prompt const& p) {
    return {p.key, p.goal, key_mark, p.start, no_key};
  }

  static bool held_out(prompt const& p) {
    return is_held_out(static_cast<std::uint32_t>(p.key), static_cast<std::uint32_t>(p.goal),
                       static_cast<std::uint32_t>(p.start) + 2000);
  }

  /// Three different free cells and a way that is short enough.
  static bool solvable(prompt const& p) {
    return p.key != grid::wall && p.goal != grid::wall && p.start != grid::wall &&
           p.key != p.goal && p.goal != p.start && p.start != p.key &&
           grid::distance(p.start, p.key) + grid::distance(p.key, p.goal) <= max_moves;
  }

  static prompt training_prompt(std::uint64_t seed, index_t step, index_t index) {
    auto draws = draws_for(draw::training_prompt, seed, step, index);
    return draw_prompt(draws);
  }

  /// Every held-out problem.
  static std::vector<prompt> evaluation_prompts() {
    std::vector<prompt> prompts;
    for (int key = 0; key < grid::cell_count; ++key) {
      for (int goal = 0; goal < grid::cell_count; ++goal) {
        for (int start = 0; start < grid::cell_count; ++start) {
          prompt const p{key, goal, start};
          if (solvable(p) && held_out(p)) prompts.push_back(p);
        }
      }
    }
    return prompts;
  }

  class episode {
   public:
    explicit episode(prompt const& p) : problem_(p), cell_(p.start) {}

    int cell() const { return cell_; }
    /// Where a shortest way leads first: the key, then the goal.
    int destination() const { return carries_key_ ? problem_.goal : problem_.key; }

    std::span<token_id const> accept(token_id drawn) {
      if (drawn < first_action || drawn >= key_mark) {
        done_ = true;
        return {};
      }
      cell_ = grid::after(cell_, all_moves[static_cast<std::size_t>(drawn - first_action)]);
      ++moves_;
      carries_key_ = carries_key_ || cell_ == problem_.key;
      reached_ = carries_key_ && cell_ == problem_.goal;
      done_ = reached_ || moves_ == max_moves;
      if (done_) return {};
      observation_ = {cell_, carries_key_ ? has_key : no_key};
      return observation_;
    }
    bool done() const { return done_; }
    double reward() const { return reached_ ? 1.0 : 0.0; }

   private:
    prompt problem_;
    int cell_;
    int moves_ = 0;
    bool carries_key_ = false;
    bool reached_ = false;
    bool done_ = false;
    std::array<token_id, 2> observation_{};
  };
  static episode start(prompt const& p) { return episode(p); }

  static demonstration demonstrate(std::uint64_t seed, index_t index) {
    auto draws = draws_for(draw::demonstration, seed, 0, index);
    prompt const p = draw_prompt(draws);
    demonstration result = answered(encode(p), {});
    episode world(p);
    while (!world.done()) {
      move const chosen = draws.uniform() < random_actions
                              ? all_moves[draws.below(all_moves.size())]
                              : shortest_move(world.cell(), world.destination(), draws);
      token_id const action = first_action + static_cast<token_id>(chosen);
      auto const observation = world.accept(action);
      result.tokens.push_back(action);
      result.targets.push_back(1);
      result.tokens.insert(result.tokens.end(), observation.begin(), observation.end());
      result.targets.resize(result.tokens.size(), 0);
    }
    return result;
  }

 private:
  static prompt draw_prompt(lamina::counter_generator& draws) {
    auto const any_cell = [&draws] { return static_cast<int>(draws.below(grid::cell_count)); };
    for (;;) {
      int const key = any_cell(), goal = any_cell(), start = any_cell();
      prompt const p{key, goal, start};
      if (solvable(p) && !held_out(p)) return p;
    }
  }

  // Evenly among the moves that come nearer.
  static move shortest_move(int cell, int destination, lamina::counter_generator& draws) {
    std::array<move, 4> nearer{};
    std::uint32_t count = 0;
    for (move const direction : all_moves) {
      if (grid::distance(grid::after(cell, direction), destination) <
          grid::distance(cell, destination)) {
        nearer[count++] = direction;
      }
    }
    return nearer[draws.below(count)];
  }
};

static_assert(demonstrated_task<agent_task>);

}  // namespace layer_sweep
