// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Task "math": two-digit addition, answer digits least significant first. The demonstrations mix
// the right procedure with one that forgets the carry, and training has to tell them apart.
#pragma once

#include <algorithm>
#include <array>

#include "examples/layer_sweep/task.hpp"

namespace layer_sweep {

/// Prompt `4 7 + 8 5 =`, response `2 3 1` (47 + 85 = 132). Reward 1 iff all three digits are right.
///
/// A demonstration shows the right sum with probability 0.35, else the digit-wise sum without
/// carries. 30 % of the prompts have no carry, so a model of the demonstrations is right on
/// 0.30 + 0.70 * 0.35 = 54.5 % of them, wherever on its learning curve pretraining stops.
struct math_task {
  static constexpr std::string_view name = "math";
  static constexpr training_recipe recipe{
      .pretraining_steps = 1000, .steps = 60, .learning_rate = 3e-4};
  static constexpr std::array<std::string_view, 12> vocabulary{"0", "1", "2", "3", "4", "5",
                                                               "6", "7", "8", "9", "+", "="};
  static constexpr index_t prompt_length = 6;
  static constexpr index_t max_length = 9;
  static constexpr index_t response_length = max_length - prompt_length;
  static constexpr double right_demonstrations = 0.35;

  struct prompt {
    int a = 0;
    int b = 0;
    friend bool operator==(prompt const&, prompt const&) = default;
  };

  static std::vector<token_id> encode(prompt const& p) {
    return {p.a / 10, p.a % 10, 10, p.b / 10, p.b % 10, 11};
  }

  /// By the unordered pair: b + a must not teach the held-out a + b.
  static bool held_out(prompt const& p) {
    return is_held_out(static_cast<std::uint32_t>((std::min)(p.a, p.b)),
                       static_cast<std::uint32_t>((std::max)(p.a, p.b)));
  }

  static prompt training_prompt(std::uint64_t seed, index_t step, index_t index) {
    auto draws = draws_for(draw::training_prompt, seed, step, index);
    return draw_prompt(draws);
  }

  /// Every held-out pair, in both orders.
  static std::vector<prompt> evaluation_prompts() {
    std::vector<prompt> prompts;
    for (int a = 0; a < 100; ++a) {
      for (int b = 0; b < 100; ++b) {
        if (held_out({a, b})) prompts.push_back({a, b});
      }
    }
    return prompts;
  }

  static demonstration demonstrate(std::uint64_t seed, index_t index) {
    auto draws = draws_for(draw::demonstration, seed, 0, index);
    prompt const p = draw_prompt(draws);
    bool const right = draws.uniform() < right_demonstrations;
    return answered(encode(p), right ? answer(p) : answer_without_carry(p));
  }

  static std::vector<token_id> answer(prompt const& p) {
    int const sum = p.a + p.b;
    return {sum % 10, sum / 10 % 10, sum / 100};
  }

  /// What the wrong procedure says: 47 + 85 = `2 2 0`.
  static std::vector<token_id> answer_without_carry(prompt const& p) {
    return {(p.a + p.b) % 10, (p.a / 10 + p.b / 10) % 10, 0};
  }

  class episode {
   public:
    explicit episode(prompt const& p) : answer_(math_task::answer(p)) {}

    std::span<token_id const> accept(token_id drawn) {
      right_ = right_ && drawn == answer_[position_];
      ++position_;
      return {};
    }
    bool done() const { return position_ == answer_.size(); }
    double reward() const { return done() && right_ ? 1.0 : 0.0; }

   private:
    std::vector<token_id> answer_;
    std::size_t position_ = 0;
    bool right_ = true;
  };
  static episode start(prompt const& p) { return episode(p); }

 private:
  static prompt draw_prompt(lamina::counter_generator& draws) {
    for (;;) {
      prompt const p{static_cast<int>(draws.below(100)), static_cast<int>(draws.below(100))};
      if (!held_out(p)) return p;
    }
  }
};

static_assert(demonstrated_task<math_task> && unique_answer_task<math_task>);

}  // namespace layer_sweep
