// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How good a model is at a task: exactly where the answer is unique, else by sampling with noise
// that all models share.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "examples/decoder/sampler.hpp"
#include "examples/layer_sweep/episodes.hpp"
#include "lamina/policy/token_logprob.hpp"

namespace layer_sweep {

/// A score and the standard error that sampling leaves in it.
struct score {
  double value = 0;
  double error = 0;
};

/// The probability that an answer sampled at temperature 1 is right, mean over prompts:
///
///   S = mean_prompts prod_t p(answer_t | prompt, answer_0 .. answer_(t-1))
///
/// One teacher-forced forward pass; nothing is sampled, so nothing is left but rounding.
template <unique_answer_task Task>
class exact_score {
 public:
  explicit exact_score(std::vector<typename Task::prompt> const& prompts) {
    for (std::size_t first = 0; first < prompts.size(); first += chunk_size) {
      std::size_t const last = (std::min)(prompts.size(), first + chunk_size);
      demonstration_batch packed;
      for (std::size_t i = first; i < last; ++i) {
        packed.append(answered(Task::encode(prompts[i]), Task::answer(prompts[i])));
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
    return {total / static_cast<double>(count), 0};
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

/// The fraction of sampled episodes that succeed, four of every prompt. The noise is a function of
/// the prompt's number, the copy and the position, the same for all models: what it adds to one
/// score it adds to the next, and most of it cancels in differences.
template <verifiable_task Task>
class sampled_score {
 public:
  explicit sampled_score(std::vector<typename Task::prompt> prompts)
      : prompts_(std::move(prompts)) {}

  template <class Model>
  score operator()(Model& model) const {
    decoder::sampler<typename Model::backend_type> sampler(model.backend());
    double total = 0, spread = 0;
    for (std::size_t first = 0; first < prompts_.size(); first += chunk_size) {
      std::size_t const last = (std::min)(prompts_.size(), first + chunk_size);
      std::span<typename Task::prompt const> const all(prompts_);
      episodes<Task> world(all.subspan(first, last - first), copies);
      sampler.sample(model, world.encoded(), copies, world,
                     {.seed = noise_seed, .first_row = static_cast<index_t>(first) * copies},
                     Task::max_length);
      auto const rewards = world.rewards();
      for (std::size_t p = 0; p < last - first; ++p) {
        double successes = 0;
        for (std::size_t c = 0; c < copies; ++c) {
          successes += static_cast<double>(rewards[p * copies + c]);
        }
        double const rate = successes / copies;
        total += rate;
        spread += rate * (1 - rate) / (copies - 1);  // the variance of a mean of `copies` draws
      }
    }
    double const count = static_cast<double>(prompts_.size());
    return {total / count, std::sqrt(spread) / count};
  }

 private:
  static constexpr index_t copies = 4;
  static constexpr std::size_t chunk_size = 32;
  static constexpr std::uint64_t noise_seed = 0x5c02e5eed;

  std::vector<typename Task::prompt> prompts_;
};

/// The held-out problems a sweep is scored on: all, or `count` of them, evenly spaced.
template <verifiable_task Task>
std::vector<typename Task::prompt> evaluation_prompts(index_t count) {
  auto const all = Task::evaluation_prompts();
  auto const available = static_cast<index_t>(all.size());
  if (count == 0 || count >= available) return all;
  std::vector<typename Task::prompt> some;
  for (index_t i = 0; i < count; ++i) {
    some.push_back(all[static_cast<std::size_t>(i * available / count)]);
  }
  return some;
}

/// The score of a task: exact if it can be.
template <class Task>
struct score_of {
  using type = sampled_score<Task>;
};
template <unique_answer_task Task>
struct score_of<Task> {
  using type = exact_score<Task>;
};
template <verifiable_task Task>
using task_score = typename score_of<Task>::type;

}  // namespace layer_sweep
