// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A task in words: problems that a generator writes, asked of a chat model, answered in free text
// that a verifier reads.
#pragma once

#include <algorithm>
#include <concepts>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "examples/layer_sweep/task.hpp"
#include "lamina/core/error.hpp"

namespace layer_sweep {

/// What a text task was found to need; the defaults of the options with the same names.
struct text_recipe {
  index_t steps = 0;
  double learning_rate = 0;
  double layer_learning_rate = 0;
  /// Tokens of the longest response, the one that ends it included.
  index_t response_length = 0;
};

/// Problems in words. Static members:
///
///   name               what --task takes
///   recipe             a text_recipe
///   system             the system prompt; short, because every rollout pays for it
///   opening            what every response begins with, written for the model; may be empty
///   one_line           whether a line break ends a response, as the model's own end does
///   problem            a small value, comparable
///   draw(generator)    a problem
///   identity(problem)  the same text for problems that differ in their wording alone
///   question(problem)  what the user asks
///   grade(problem, response)  what the response is worth, 0 to 1
template <class P>
concept text_problems = std::equality_comparable<typename P::problem> &&
    requires(typename P::problem const& problem, lamina::counter_generator& draws,
             std::string_view response) {
  { P::name } -> std::convertible_to<std::string_view>;
  { P::recipe } -> std::convertible_to<text_recipe>;
  { P::system } -> std::convertible_to<std::string_view>;
  { P::opening } -> std::convertible_to<std::string_view>;
  { P::one_line } -> std::convertible_to<bool>;
  { P::draw(draws) } -> std::same_as<typename P::problem>;
  { P::identity(problem) } -> std::same_as<std::string>;
  { P::question(problem) } -> std::same_as<std::string>;
  { P::grade(problem, response) } -> std::same_as<double>;
};

/// What turns a conversation into tokens and back. A value that is cheap to copy:
///
///   encode(system, user, opening)  tokens up to and with the opening of the assistant's response
///   decode(tokens)                 the text of a response
///   ends(token)                    whether the token ends a response
template <class C>
concept chat_codec = std::copyable<C> &&
    requires(C const& codec, std::string_view text, std::span<token_id const> tokens, token_id id) {
  { codec.encode(text, text, text) } -> std::same_as<std::vector<token_id>>;
  { codec.decode(tokens) } -> std::same_as<std::string>;
  { codec.ends(id) } -> std::same_as<bool>;
};

/// Problems asked through a codec: a verifiable_task. A fifth of the identities is held out.
template <text_problems Problems, chat_codec Codec>
class text_task {
 public:
  using prompt = typename Problems::problem;

  /// evaluation_count  held-out problems, all different
  text_task(Codec codec, index_t response_limit, index_t evaluation_count)
      : response_length(response_limit),
        codec_(std::move(codec)),
        evaluation_count_(evaluation_count) {}

  index_t response_length;

  std::vector<token_id> encode(prompt const& p) const {
    return codec_.encode(Problems::system, Problems::question(p), Problems::opening);
  }

  bool held_out(prompt const& p) const {
    std::uint64_t const hash = lamina::fnv1a_64(Problems::identity(p));
    return is_held_out(static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(hash >> 32));
  }

  prompt training_prompt(std::uint64_t seed, index_t step, index_t index) const {
    auto draws = draws_for(draw::training_prompt, seed, step, index);
    for (;;) {
      prompt p = Problems::draw(draws);
      if (!held_out(p)) return p;
    }
  }

  /// Throws config_error if the generator has not as many held-out problems.
  std::vector<prompt> evaluation_prompts() const {
    constexpr index_t most_repeats = 10'000;  // draws in a row that bring no new problem
    std::vector<prompt> prompts;
    std::set<std::string> asked;
    index_t repeats = 0;
    for (index_t i = 0; static_cast<index_t>(prompts.size()) < evaluation_count_; ++i) {
      auto draws = draws_for(draw::evaluation_prompt, 0, 0, i);
      prompt p = Problems::draw(draws);
      if (held_out(p) && asked.insert(Problems::question(p)).second) {
        prompts.push_back(std::move(p));
        repeats = 0;
      } else if (++repeats == most_repeats) {
        lamina::throw_config_error("text_task: ", evaluation_count_,
                                   " held-out problems are asked for, task ", Problems::name,
                                   " was found to have ", prompts.size());
      }
    }
    return prompts;
  }

  /// A response, token by token, until the model ends it or, if it is one line, the line. The token
  /// that ends it is not part of its text.
  class episode {
   public:
    episode(prompt const& p, Codec const& codec) : problem_(p), codec_(codec) {}

    std::span<token_id const> accept(token_id drawn) {
      done_ = codec_.ends(drawn) ||
              (Problems::one_line && codec_.decode({&drawn, 1}).find('\n') != std::string::npos);
      if (!done_) response_.push_back(drawn);
      return {};
    }
    bool done() const { return done_; }
    double reward() const { return Problems::grade(problem_, codec_.decode(response_)); }

   private:
    prompt problem_;
    Codec codec_;
    std::vector<token_id> response_;
    bool done_ = false;
  };
  episode start(prompt const& p) const { return episode(p, codec_); }

 private:
  Codec codec_;
  index_t evaluation_count_;
};

/// A fingerprint of what the problems pose: wording, answers and split.
template <text_problems Problems>
std::string problems_fingerprint() {
  std::string text = std::string(Problems::system) + '\n' + std::string(Problems::opening) + '\n';
  for (index_t i = 0; i < 1000; ++i) {
    auto draws = draws_for(draw::evaluation_prompt, 0, 1, i);
    auto const problem = Problems::draw(draws);
    text += Problems::identity(problem) + '\n' + Problems::question(problem) + '\n';
  }
  return lamina::hex_text(lamina::fnv1a_64(text));
}

}  // namespace layer_sweep
