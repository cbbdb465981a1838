// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Task "code": write a program for a stack machine that leaves a given number on top. The program
// is verified by running it.
#pragma once

#include <array>

#include "examples/layer_sweep/stack_machine.hpp"
#include "examples/layer_sweep/task.hpp"

namespace layer_sweep {

/// Prompt `x y > t1 t0 :` (stack [x, y], target 10 t1 + t0), response up to four operations and
/// HALT. Reward 1 iff the program halts with the target on top; an operation the stack does not
/// allow, or a token that is no operation, ends the episode with reward 0.
///
/// Targets are those of random legal programs of two to four operations that no program of one
/// operation reaches. A demonstration shows such a program under its target, or, in 15 % of them,
/// another program of the same lengths.
struct code_task {
  static constexpr std::string_view name = "code";
  static constexpr training_recipe recipe{
      .pretraining_steps = 2000, .steps = 60, .learning_rate = 5e-4};
  static constexpr std::array<std::string_view, 19> vocabulary{
      "0", "1", "2", "3", "4", "5",   "6",    "7",   "8",   "9",
      ">", ":", "+", "-", "*", "DUP", "SWAP", "INC", "HALT"};
  static constexpr token_id arrow = 10, colon = 11, first_operation = 12, halt = 18;
  static constexpr index_t prompt_length = 6;
  static constexpr index_t max_operations = 4;
  static constexpr index_t max_length = prompt_length + max_operations + 1;
  static constexpr index_t response_length = max_length - prompt_length;
  static constexpr index_t evaluation_count = 1024;
  static constexpr double unrelated_demonstrations = 0.15;

  struct prompt {
    int x = 0;
    int y = 0;
    int target = 0;
    friend bool operator==(prompt const&, prompt const&) = default;
  };

  static std::vector<token_id> encode(prompt const& p) {
    return {p.x, p.y, arrow, p.target / 10, p.target % 10, colon};
  }

  static bool held_out(prompt const& p) {
    return is_held_out(static_cast<std::uint32_t>(p.x), static_cast<std::uint32_t>(p.y),
                       static_cast<std::uint32_t>(p.target) + 1000);
  }

  static prompt training_prompt(std::uint64_t seed, index_t step, index_t index) {
    auto draws = draws_for(draw::training_prompt, seed, step, index);
    return draw_hard_program(draws, false).solves;
  }

  static std::vector<prompt> evaluation_prompts() {
    std::vector<prompt> prompts;
    for (index_t index = 0; index < evaluation_count; ++index) {
      auto draws = draws_for(draw::evaluation_prompt, 0, 0, index);
      prompts.push_back(draw_hard_program(draws, true).solves);
    }
    return prompts;
  }

  static demonstration demonstrate(std::uint64_t seed, index_t index) {
    auto draws = draws_for(draw::demonstration, seed, 0, index);
    program shown = draw_hard_program(draws, false);
    prompt const p = shown.solves;
    if (draws.uniform() < unrelated_demonstrations) shown = draw_program(draws, p.x, p.y);
    shown.tokens.push_back(halt);
    return answered(encode(p), shown.tokens);
  }

  class episode {
   public:
    explicit episode(prompt const& p) : machine_(p.x, p.y), target_(p.target) {}

    std::span<token_id const> accept(token_id drawn) {
      if (drawn == halt) {
        right_ = machine_.top() == target_;
        done_ = true;
      } else if (!is_operation(drawn) || ++used_ > max_operations ||
                 !machine_.apply(operation_of(drawn))) {
        done_ = true;
      }
      return {};
    }
    bool done() const { return done_; }
    double reward() const { return right_ ? 1.0 : 0.0; }

   private:
    stack_machine machine_;
    int target_;
    index_t used_ = 0;
    bool done_ = false;
    bool right_ = false;
  };
  static episode start(prompt const& p) { return episode(p); }

 private:
  struct program {
    prompt solves;
    std::vector<token_id> tokens;
  };

  static constexpr bool is_operation(token_id token) {
    return token >= first_operation && token < halt;
  }
  static constexpr operation operation_of(token_id token) {
    return all_operations[static_cast<std::size_t>(token - first_operation)];
  }

  // Two to max_operations legal operations on [x, y].
  static program draw_program(lamina::counter_generator& draws, int x, int y) {
    program result{{x, y, 0}, {}};
    stack_machine machine(x, y);
    auto const length = 2 + static_cast<std::size_t>(draws.below(max_operations - 1));
    while (result.tokens.size() < length) {
      token_id const token =
          first_operation + static_cast<token_id>(draws.below(all_operations.size()));
      if (machine.apply(operation_of(token))) result.tokens.push_back(token);
    }
    result.solves.target = machine.top();
    return result;
  }

  // Many targets are on the stack already or one operation away; those would reward doing nothing.
  static program draw_hard_program(lamina::counter_generator& draws, bool wanted) {
    for (;;) {
      int const x = static_cast<int>(draws.below(10));
      int const y = static_cast<int>(draws.below(10));
      program const drawn = draw_program(draws, x, y);
      prompt const& p = drawn.solves;
      if (held_out(p) == wanted && !reachable_in_one(x, y, p.target)) return drawn;
    }
  }
};

static_assert(demonstrated_task<code_task>);

}  // namespace layer_sweep
