// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a verifiable task is: prompts, a held-out split, and episodes that take one token at a time
// and end in a reward; and what one adds that a model is pretrained for.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "examples/layer_sweep/settings.hpp"
#include "lamina/core/random.hpp"
#include "lamina/io/record.hpp"

namespace layer_sweep {

using token_id = std::int32_t;

/// One sequence to pretrain on. Token t is a target of the loss iff targets[t] is 1; the prompt
/// and what an environment says are never targets.
struct demonstration {
  std::vector<token_id> tokens;
  std::vector<std::uint8_t> targets;
};

/// What a random draw is for. Every purpose has its own streams, so that no draw of one depends on
/// how many another has made.
enum class draw : std::uint64_t { demonstration = 1, training_prompt, evaluation_prompt, shuffle };

/// The draws for item `index` of step `step`: a function of its arguments and of nothing else.
/// step < 2^28 and index < 2^28.
constexpr lamina::counter_generator draws_for(draw purpose, std::uint64_t seed, index_t step,
                                              index_t index) noexcept {
  return lamina::counter_generator(seed, (static_cast<std::uint64_t>(purpose) << 56) |
                                             (static_cast<std::uint64_t>(step) << 28) |
                                             static_cast<std::uint64_t>(index));
}

/// Whether the problem with this identity belongs to the held-out fifth. Problems that are the
/// same up to an order the answer does not depend on must be given the same identity.
constexpr bool is_held_out(std::uint32_t a, std::uint32_t b, std::uint32_t c = 0) noexcept {
  return lamina::philox4x32(0x1a713ae5c0ffee01u, {{a, b, c, 0}}).word[0] % 5 == 0;
}

/// One run through a problem: takes the sampled tokens one at a time until it is done.
///
///   accept(token)   told the token the policy drew; what it returns is appended to the sequence
///                   before the next draw, as observations that are never trained on, and is
///                   valid until the next call. Not called once done.
///   done()          whether the episode has ended
///   reward()        what it was worth; 0 before it has ended
template <class E>
concept task_episode = requires(E& episode, E const& constant, token_id drawn) {
  { episode.accept(drawn) } -> std::same_as<std::span<token_id const>>;
  { constant.done() } -> std::same_as<bool>;
  { constant.reward() } -> std::same_as<double>;
};

/// A reinforcement-learning task whose reward is computed, not judged. A value that is cheap to
/// copy:
///
///   prompt                  one problem, a small value
///   response_length         no response is longer, observations included
///   encode(prompt)          the prompt's tokens
///   held_out(prompt)        whether it may only be used for evaluation
///   training_prompt(seed, step, index)   never held out
///   evaluation_prompts()    held-out problems, the same in every call
///   start(prompt)           a task_episode
template <class T>
concept verifiable_task = std::copyable<T> &&
    requires(T const& task, typename T::prompt const& prompt, std::uint64_t seed, index_t index) {
  { task.response_length } -> std::convertible_to<index_t>;
  { task.encode(prompt) } -> std::same_as<std::vector<token_id>>;
  { task.held_out(prompt) } -> std::same_as<bool>;
  { task.training_prompt(seed, index, index) } -> std::same_as<typename T::prompt>;
  { task.evaluation_prompts() } -> std::same_as<std::vector<typename T::prompt>>;
  { task.start(prompt) } -> task_episode;
};

/// A task that a small model of its own is pretrained for. Static members besides:
///
///   name                    what --task takes
///   recipe                  the training it was found to need
///   vocabulary              printable names; a token id is an index into it
///   prompt_length           every encoded prompt has this many tokens
///   max_length              no sequence is longer: prompt, response and observations
///   demonstrate(seed, index)             never held out
template <class T>
concept demonstrated_task = verifiable_task<T> && requires(std::uint64_t seed, index_t index) {
  { T::name } -> std::convertible_to<std::string_view>;
  { T::recipe } -> std::convertible_to<training_recipe>;
  { T::vocabulary[0] } -> std::convertible_to<std::string_view>;
  { T::vocabulary.size() } -> std::convertible_to<std::size_t>;
  { T::prompt_length } -> std::convertible_to<index_t>;
  { T::max_length } -> std::convertible_to<index_t>;
  { T::demonstrate(seed, index) } -> std::same_as<demonstration>;
};

/// A task whose only right response is answer(prompt): its score is a probability that one forward
/// pass computes, without sampling.
template <class T>
concept unique_answer_task = verifiable_task<T> &&
    requires(T const& task, typename T::prompt const& prompt) {
  { task.answer(prompt) } -> std::same_as<std::vector<token_id>>;
};

/// The tokens by their names, separated by blanks.
template <demonstrated_task Task>
std::string to_text(std::span<token_id const> tokens) {
  std::string text;
  for (token_id const token : tokens) {
    if (!text.empty()) text += ' ';
    text += Task::vocabulary[static_cast<std::size_t>(token)];
  }
  return text;
}

/// A demonstration whose prompt is followed by `response`, every token of which is a target.
inline demonstration answered(std::vector<token_id> prompt, std::span<token_id const> response) {
  demonstration result{std::move(prompt), {}};
  result.targets.assign(result.tokens.size(), 0);
  result.tokens.insert(result.tokens.end(), response.begin(), response.end());
  result.targets.resize(result.tokens.size(), 1);
  return result;
}

/// A fingerprint of what the task poses: its first demonstrations and training prompts and all that
/// it evaluates on. Models and results of one fingerprint are of one task.
template <demonstrated_task Task>
std::string task_fingerprint() {
  std::string bytes;
  auto const add = [&bytes](std::vector<token_id> const& tokens) {
    for (token_id const token : tokens) bytes += static_cast<char>(token);
    bytes += '\x7f';  // no token id of these vocabularies
  };
  for (index_t i = 0; i < 256; ++i) {
    demonstration const shown = Task::demonstrate(1, i);
    add(shown.tokens);
    add({shown.targets.begin(), shown.targets.end()});
    add(Task::encode(Task::training_prompt(1, 0, i)));
  }
  for (auto const& prompt : Task::evaluation_prompts()) add(Task::encode(prompt));
  return lamina::hex_text(lamina::fnv1a_64(bytes));
}

}  // namespace layer_sweep
