// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What every text task must obey, and a codec small enough to read: one character, one token.
#pragma once

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "examples/layer_sweep/text_task.hpp"

namespace layer_sweep::testing {

/// Token t is the character t; 0 ends a response.
struct character_codec {
  std::vector<token_id> encode(std::string_view system, std::string_view user,
                               std::string_view opening) const {
    std::string const text =
        std::string(system) + '|' + std::string(user) + '|' + std::string(opening);
    return {text.begin(), text.end()};
  }
  std::string decode(std::span<token_id const> tokens) const {
    std::string text;
    for (token_id const token : tokens) text += static_cast<char>(token);
    return text;
  }
  bool ends(token_id token) const { return token == 0; }
};

static_assert(chat_codec<character_codec>);

/// What a response is worth that is said token by token and then ended; -1 if it ended before.
template <class Task>
double reward_of(Task const& task, typename Task::prompt const& prompt, std::string const& text) {
  auto episode = task.start(prompt);
  for (char const c : text) {
    if (episode.done()) return -1;
    episode.accept(c);
  }
  if (!episode.done()) episode.accept(0);
  return episode.done() ? episode.reward() : -1;
}

template <text_problems Problems>
void check_text_task() {
  text_task<Problems, character_codec> const task({}, 10, 100);
  static_assert(verifiable_task<std::remove_const_t<decltype(task)>>);

  // Held-out problems: as many as asked for, all different, the same every time.
  auto const evaluated = task.evaluation_prompts();
  REQUIRE(evaluated.size() == 100);
  CHECK(evaluated == task.evaluation_prompts());
  std::set<std::string> questions, held_out;
  for (auto const& prompt : evaluated) {
    REQUIRE(task.held_out(prompt));
    questions.insert(Problems::question(prompt));
    held_out.insert(Problems::identity(prompt));
  }
  CHECK(questions.size() == 100);

  // Training problems: a function of seed, step and index, never of an identity that is evaluated.
  int equal = 0;
  for (index_t step = 0; step < 20; ++step) {
    for (index_t index = 0; index < 10; ++index) {
      auto const prompt = task.training_prompt(1, step, index);
      REQUIRE(prompt == task.training_prompt(1, step, index));
      REQUIRE_FALSE(task.held_out(prompt));
      REQUIRE(held_out.count(Problems::identity(prompt)) == 0);
      equal += prompt == task.training_prompt(2, step, index);
      equal += prompt == task.training_prompt(1, step + 1, index);
    }
  }
  CHECK(equal < 40);

  // About a fifth is held out.
  int count = 0;
  for (index_t i = 0; i < 1000; ++i) {
    auto draws = draws_for(draw::training_prompt, 9, 0, i);
    count += task.held_out(Problems::draw(draws));
  }
  CHECK(count > 100);
  CHECK(count < 320);

  // Nothing and a cut-off response are worth nothing.
  CHECK(reward_of(task, evaluated[0], "") == 0);
  CHECK(Problems::grade(evaluated[0], "") == 0);
}

}  // namespace layer_sweep::testing
