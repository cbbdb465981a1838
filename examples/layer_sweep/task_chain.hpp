// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Task "chain": the sum of six digits modulo ten, with a scratchpad of running sums that the policy
// may or may not use. Training has to choose the scratchpad and to stop slipping in it.
#pragma once

#include <algorithm>
#include <array>

#include "examples/layer_sweep/task.hpp"

namespace layer_sweep {

/// Prompt `d1 .. d6 =`, response `ANS d` or `SCR s1 .. s6 ANS d` with running sums s. Reward 1 iff
/// d is the sum modulo ten; what the scratchpad says is not checked, only that it holds digits and
/// at most six of them. Any other token where it does not belong ends the episode with reward 0.
///
/// 70 % of the demonstrations have a scratchpad, in which each running sum is replaced by a random
/// digit with probability 0.1 and the error propagates; the others answer directly, which a model
/// of this size cannot do.
struct chain_task {
  static constexpr std::string_view name = "chain";
  static constexpr training_recipe recipe{
      .pretraining_steps = 800, .steps = 60, .learning_rate = 5e-4};
  static constexpr std::array<std::string_view, 13> vocabulary{"0", "1", "2", "3", "4",   "5",  "6",
                                                               "7", "8", "9", "=", "SCR", "ANS"};
  static constexpr token_id equals = 10, scratchpad = 11, answer_mark = 12;
  static constexpr index_t digit_count = 6;
  static constexpr index_t prompt_length = digit_count + 1;
  static constexpr index_t max_length = prompt_length + 1 + digit_count + 2;
  static constexpr index_t response_length = max_length - prompt_length;
  static constexpr index_t evaluation_count = 512;
  static constexpr double scratchpad_demonstrations = 0.7;
  static constexpr double slip = 0.1;

  using prompt = std::array<int, digit_count>;

  static std::vector<token_id> encode(prompt const& digits) {
    std::vector<token_id> tokens(digits.begin(), digits.end());
    tokens.push_back(equals);
    return tokens;
  }

  static int sum(prompt const& digits) {
    int total = 0;
    for (int const digit : digits) total += digit;
    return total % 10;
  }

  /// By the sorted digits, because the sum does not depend on their order.
  static bool held_out(prompt digits) {
    std::sort(digits.begin(), digits.end());
    std::uint32_t number = 0;
    for (int const digit : digits) number = number * 10 + static_cast<std::uint32_t>(digit);
    return is_held_out(number, 6);
  }

  static prompt training_prompt(std::uint64_t seed, index_t step, index_t index) {
    auto draws = draws_for(draw::training_prompt, seed, step, index);
    return draw_prompt(draws, false);
  }

  static std::vector<prompt> evaluation_prompts() {
    std::vector<prompt> prompts;
    for (index_t index = 0; index < evaluation_count; ++index) {
      auto draws = draws_for(draw::evaluation_prompt, 0, 0, index);
      prompts.push_back(draw_prompt(draws, true));
    }
    return prompts;
  }

  static demonstration demonstrate(std::uint64_t seed, index_t index) {
    auto draws = draws_for(draw::demonstration, seed, 0, index);
    prompt const digits = draw_prompt(draws, false);
    std::vector<token_id> response;
    int result = sum(digits);
    if (draws.uniform() < scratchpad_demonstrations) {
      response.push_back(scratchpad);
      result = 0;
      for (int const digit : digits) {
        result = (result + digit) % 10;
        if (draws.uniform() < slip) result = static_cast<int>(draws.below(10));
        response.push_back(result);
      }
    }
    response.push_back(answer_mark);
    response.push_back(result);
    return answered(encode(digits), response);
  }

  class episode {
   public:
    explicit episode(prompt const& digits) : sum_(chain_task::sum(digits)) {}

    std::span<token_id const> accept(token_id drawn) {
      bool const digit = drawn >= 0 && drawn < 10;
      switch (state_) {
        case state::start:
          state_ = drawn == scratchpad    ? state::scratchpad
                   : drawn == answer_mark ? state::answer
                                          : state::done;
          break;
        case state::scratchpad:
          if (drawn == answer_mark) {
            state_ = state::answer;
          } else if (!digit || ++written_ > digit_count) {
            state_ = state::done;
          }
          break;
        case state::answer:
          right_ = drawn == sum_;
          state_ = state::done;
          break;
        case state::done: break;
      }
      return {};
    }
    bool done() const { return state_ == state::done; }
    double reward() const { return right_ ? 1.0 : 0.0; }

   private:
    enum class state { start, scratchpad, answer, done };
    int sum_;
    state state_ = state::start;
    index_t written_ = 0;
    bool right_ = false;
  };
  static episode start(prompt const& p) { return episode(p); }

 private:
  static prompt draw_prompt(lamina::counter_generator& draws, bool wanted) {
    for (;;) {
      prompt digits{};
      for (int& digit : digits) digit = static_cast<int>(draws.below(10));
      if (held_out(digits) == wanted) return digits;
    }
  }
};

static_assert(demonstrated_task<chain_task>);

}  // namespace layer_sweep
