// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What every verifiable task must obey: determinism by counter, a split that is kept, lengths that
// hold, demonstrations that are well formed.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "examples/layer_sweep/task.hpp"

namespace layer_sweep::testing {

/// Runs an episode on the given tokens by name; returns its reward, or -1 if it did not end with
/// the last of them.
template <demonstrated_task Task>
double reward_of(typename Task::prompt const& prompt, std::string const& response) {
  typename Task::episode episode(prompt);
  std::size_t begin = 0;
  while (begin < response.size()) {
    std::size_t const end = (std::min)(response.find(' ', begin), response.size());
    std::string_view const name = std::string_view(response).substr(begin, end - begin);
    auto const found = std::find(Task::vocabulary.begin(), Task::vocabulary.end(), name);
    REQUIRE(found != Task::vocabulary.end());
    if (episode.done()) return -1;
    episode.accept(static_cast<token_id>(found - Task::vocabulary.begin()));
    begin = end + 1;
  }
  return episode.done() ? episode.reward() : -1;
}

template <demonstrated_task Task>
void check_determinism() {
  // Drawn backwards the second time: a prompt depends on (seed, step, index) alone.
  std::vector<std::vector<token_id>> forwards;
  for (index_t step = 0; step < 3; ++step) {
    for (index_t index = 0; index < 16; ++index) {
      forwards.push_back(Task::encode(Task::training_prompt(1, step, index)));
    }
  }
  std::size_t position = forwards.size();
  for (index_t step = 3; step-- > 0;) {
    for (index_t index = 16; index-- > 0;) {
      CHECK(Task::encode(Task::training_prompt(1, step, index)) == forwards[--position]);
    }
  }
  CHECK(Task::demonstrate(5, 3).tokens == Task::demonstrate(5, 3).tokens);
  // Other seeds, steps and indices are other problems: 48 draws may collide now and then, 24 of 48
  // may not.
  int equal = 0;
  for (index_t index = 0; index < 48; ++index) {
    equal += Task::encode(Task::training_prompt(1, 0, index)) ==
             Task::encode(Task::training_prompt(2, 0, index));
    equal += Task::encode(Task::training_prompt(1, 0, index)) ==
             Task::encode(Task::training_prompt(1, 1, index));
  }
  CHECK(equal < 24);
}

template <demonstrated_task Task>
void check_split() {
  for (auto const& prompt : Task::evaluation_prompts()) REQUIRE(Task::held_out(prompt));
  for (index_t step = 0; step < 50; ++step) {
    for (index_t index = 0; index < 20; ++index) {
      REQUIRE_FALSE(Task::held_out(Task::training_prompt(1, step, index)));
    }
  }
}

template <demonstrated_task Task>
void check_shapes() {
  auto const vocabulary = static_cast<token_id>(Task::vocabulary.size());
  for (auto const& prompt : Task::evaluation_prompts()) {
    REQUIRE(static_cast<index_t>(Task::encode(prompt).size()) == Task::prompt_length);
  }
  for (index_t index = 0; index < 500; ++index) {
    demonstration const shown = Task::demonstrate(9, index);
    REQUIRE(shown.tokens.size() == shown.targets.size());
    REQUIRE(static_cast<index_t>(shown.tokens.size()) <= Task::max_length);
    for (token_id const token : shown.tokens) REQUIRE((token >= 0 && token < vocabulary));
    for (index_t t = 0; t < Task::prompt_length; ++t) {
      REQUIRE(shown.targets[static_cast<std::size_t>(t)] == 0);
    }
    CHECK(shown.targets[static_cast<std::size_t>(Task::prompt_length)] == 1);
    CHECK(shown.targets.back() == 1);
  }
}

/// Encoded prompts that demonstrations show and that are also evaluated: must be none.
template <demonstrated_task Task>
int leaked_demonstrations(index_t demonstrations) {
  std::vector<std::vector<token_id>> evaluated;
  for (auto const& prompt : Task::evaluation_prompts()) evaluated.push_back(Task::encode(prompt));
  std::sort(evaluated.begin(), evaluated.end());
  int leaked = 0;
  for (index_t index = 0; index < demonstrations; ++index) {
    auto tokens = Task::demonstrate(4, index).tokens;
    tokens.resize(static_cast<std::size_t>(Task::prompt_length));
    leaked += std::binary_search(evaluated.begin(), evaluated.end(), tokens);
  }
  return leaked;
}

}  // namespace layer_sweep::testing
