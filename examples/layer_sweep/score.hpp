// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How good a model is at a task: exactly where the answer is unique, else by sampling with noise
// that all models share.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "examples/decoder/sampler.hpp"
#include "examples/layer_sweep/episodes.hpp"
#include "examples/layer_sweep/interruption.hpp"
#include "lamina/policy/token_logprob.hpp"
#include "lamina/study/sweep_plan.hpp"

namespace layer_sweep {

/// Names of what an evaluation reports besides its score.
inline constexpr char const* greedy_score = "greedy score";
inline constexpr char const* truncation_rate = "truncated";
inline constexpr char const* response_tokens = "response tokens";
inline constexpr char const* greedy_truncation_rate = "greedy truncated";
inline constexpr char const* greedy_response_tokens = "greedy response tokens";

/// A score, the standard error that sampling leaves in it, and what else the evaluation saw.
struct score {
  double value = 0;
  double error = 0;
  std::vector<lamina::named_number> details{};
};

/// The probability that an answer sampled at temperature 1 is right, mean over prompts:
///
///   S = mean_prompts prod_t p(answer_t | prompt, answer_0 .. answer_(t-1))
///
/// One teacher-forced forward pass; nothing is sampled, so nothing is left but rounding.
template <unique_answer_task Task>
class exact_score {
 public:
  exact_score(Task const& task, std::vector<typename Task::prompt> const& prompts) {
    for (std::size_t first = 0; first < prompts.size(); first += chunk_size) {
      std::size_t const last = (std::min)(prompts.size(), first + chunk_size);
      demonstration_batch packed;
      for (std::size_t i = first; i < last; ++i) {
        packed.append(answered(task.encode(prompts[i]), task.answer(prompts[i])));
      }
      chunk c;
      c.prompts = last - first;
      c.batch = decoder::predict(std::move(packed.tokens), std::move(packed.offsets),
                                 packed.targets, &c.answers);
      chunks_.push_back(std::move(c));
    }
  }

  /// May be called from several threads, each with a model of its own.
  template <class Model>
  score operator()(Model& model) const {
    double total = 0;
    std::size_t count = 0;
    for (chunk const& c : chunks_) {
      std::vector<typename Model::scalar_type> log_probs(c.answers.size());
      lamina::token_log_probs(model.backend(), model.forward(c.batch), c.answers, {}, 1.0,
                              log_probs);
      std::size_t const length = c.answers.size() / c.prompts;
      for (std::size_t first = 0; first < log_probs.size(); first += length) {
        double log_prob = 0;
        for (std::size_t t = 0; t < length; ++t) {
          log_prob += static_cast<double>(log_probs[first + t]);
        }
        total += std::exp(log_prob);
      }
      count += c.prompts;
    }
    return {total / static_cast<double>(count), 0, {}};
  }

 private:
  // Enough rows for a good matrix product, few enough to stay in the cache.
  static constexpr std::size_t chunk_size = 128;

  struct chunk {
    decoder::token_batch batch;
    std::vector<token_id> answers;
    std::size_t prompts = 0;
  };
  std::vector<chunk> chunks_;
};

/// How sampled episodes of some prompts went.
struct episode_statistics {
  /// Mean reward, and the standard error that is left by the draws (not by the choice of prompts).
  double reward = 0;
  double error = 0;
  /// Fraction of episodes that were cut off.
  double truncated = 0;
  /// Mean tokens of a response.
  double response_length = 0;
};

/// `copies` episodes of every prompt. The noise is a function of the prompt's number, the copy and
/// the position, the same for all models: what it adds to one score it adds to the next, and most
/// of it cancels in differences. With one copy the error is unknown and 0.
template <verifiable_task Task, class Model>
episode_statistics sample_episodes(Task const& task, Model const& model,
                                   std::vector<typename Task::prompt> const& prompts,
                                   index_t copies, decoder::sampling_options options) {
  // Enough rows for a good matrix product; their logits and keys stay small.
  constexpr index_t rows_at_once = 128;
  auto const part = static_cast<std::size_t>((std::max)(index_t{1}, rows_at_once / copies));
  options.seed = 0x5c02e5eed;
  decoder::sampler<typename Model::backend_type> sampler(model.backend());
  std::span<typename Task::prompt const> const all(prompts);
  double const draws = static_cast<double>(copies);
  double total = 0, spread = 0;
  index_t truncated = 0, tokens = 0;
  for (std::size_t first = 0; first < all.size(); first += part) {
    throw_if_interrupted();
    std::size_t const count = (std::min)(part, all.size() - first);
    episodes<Task> world(task, all.subspan(first, count), copies);
    options.first_row = static_cast<index_t>(first) * copies;
    sampler.sample(model, world.encoded(), copies, world, options, world.max_length());
    auto const rewards = world.rewards();
    for (auto group = rewards.begin(); group != rewards.end(); group += copies) {
      double const mean = std::accumulate(group, group + copies, 0.0) / draws;
      total += mean;
      for (index_t c = 0; c < copies; ++c) {
        double const deviation = static_cast<double>(group[c]) - mean;
        if (copies > 1) spread += deviation * deviation / (draws * (draws - 1));
      }
    }
    truncated += world.truncated_count();
    tokens += world.response_token_count();
  }
  double const count = static_cast<double>(all.size());
  return {total / count, std::sqrt(spread) / count,
          static_cast<double>(truncated) / (count * draws),
          static_cast<double>(tokens) / (count * draws)};
}

/// The fraction of sampled episodes that succeed, four of every prompt.
template <verifiable_task Task>
class sampled_score {
 public:
  sampled_score(Task const& task, std::vector<typename Task::prompt> prompts)
      : task_(task), prompts_(std::move(prompts)) {}

  template <class Model>
  score operator()(Model& model) const {
    auto const seen = sample_episodes(task_, model, prompts_, 4, {});
    return {seen.reward, seen.error, {}};
  }

 private:
  Task task_;
  std::vector<typename Task::prompt> prompts_;
};

/// The same with as many samples of every prompt as wanted, at the temperature of training;
/// besides, once greedily, and how long responses were and how many were cut off.
template <verifiable_task Task>
class sampled_and_greedy_score {
 public:
  sampled_and_greedy_score(Task const& task, std::vector<typename Task::prompt> prompts,
                           index_t copies, double temperature)
      : task_(task), prompts_(std::move(prompts)), copies_(copies), temperature_(temperature) {}

  template <class Model>
  score operator()(Model& model) const {
    auto const drawn =
        sample_episodes(task_, model, prompts_, copies_, {.temperature = temperature_});
    auto const greedy = sample_episodes(task_, model, prompts_, 1, {.greedy = true});
    return {drawn.reward,
            drawn.error,
            {{greedy_score, greedy.reward},
             {truncation_rate, drawn.truncated},
             {response_tokens, drawn.response_length},
             {greedy_truncation_rate, greedy.truncated},
             {greedy_response_tokens, greedy.response_length}}};
  }

 private:
  Task task_;
  std::vector<typename Task::prompt> prompts_;
  index_t copies_;
  double temperature_;
};

/// The held-out problems a sweep is scored on: all, or `count` of them, evenly spaced.
template <verifiable_task Task>
std::vector<typename Task::prompt> evaluation_prompts(Task const& task, index_t count) {
  auto const all = task.evaluation_prompts();
  auto const available = static_cast<index_t>(all.size());
  if (count == 0 || count >= available) return all;
  std::vector<typename Task::prompt> some;
  for (index_t i = 0; i < count; ++i) {
    some.push_back(all[static_cast<std::size_t>(i * available / count)]);
  }
  return some;
}

/// The score of a task that a model was pretrained for: exact if it can be.
template <class Task>
struct score_of {
  using type = sampled_score<Task>;
};
template <unique_answer_task Task>
struct score_of<Task> {
  using type = exact_score<Task>;
};
template <demonstrated_task Task>
using task_score = typename score_of<Task>::type;

}  // namespace layer_sweep
