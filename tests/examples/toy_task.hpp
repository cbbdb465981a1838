// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A task small enough for a test: three letters, say the prompt's letter and the one after it.
#pragma once

#include <array>

#include "examples/layer_sweep/task.hpp"

namespace layer_sweep::testing {

/// Prompt `b :`, response `b c`. A model that knows nothing is right once in sixteen times.
struct toy_task {
  static constexpr std::string_view name = "toy";
  static constexpr training_recipe recipe{
      .pretraining_steps = 10, .steps = 10, .learning_rate = 3e-3};
  static constexpr std::array<std::string_view, 4> vocabulary{"a", "b", "c", ":"};
  static constexpr index_t prompt_length = 2;
  static constexpr index_t max_length = 4;
  static constexpr index_t response_length = max_length - prompt_length;

  using prompt = int;

  static std::vector<token_id> encode(prompt letter) { return {letter, 3}; }
  static bool held_out(prompt) { return false; }
  static prompt training_prompt(std::uint64_t seed, index_t step, index_t index) {
    auto draws = draws_for(draw::training_prompt, seed, step, index);
    return static_cast<int>(draws.below(3));
  }
  static std::vector<prompt> evaluation_prompts() { return {0, 1, 2}; }
  static demonstration demonstrate(std::uint64_t seed, index_t index) {
    prompt const letter = training_prompt(seed, 0, index);
    return answered(encode(letter), answer(letter));
  }
  static std::vector<token_id> answer(prompt letter) { return {letter, (letter + 1) % 3}; }

  class episode {
   public:
    explicit episode(prompt letter) : answer_(toy_task::answer(letter)) {}
    std::span<token_id const> accept(token_id drawn) {
      right_ = right_ && drawn == answer_[position_];
      ++position_;
      return {};
    }
    bool done() const { return position_ == 2; }
    double reward() const { return right_ ? 1 : 0; }

   private:
    std::vector<token_id> answer_;
    std::size_t position_ = 0;
    bool right_ = true;
  };
  static episode start(prompt p) { return episode(p); }
};

static_assert(demonstrated_task<toy_task> && unique_answer_task<toy_task>);

}  // namespace layer_sweep::testing
