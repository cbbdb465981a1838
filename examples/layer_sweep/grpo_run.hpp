// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One reinforcement-learning run: sample, verify, turn rewards into advantages, step on what was
// selected. Everything lamina does for a training loop is in step().
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "examples/decoder/sampler.hpp"
#include "examples/decoder/transformer.hpp"
#include "examples/layer_sweep/episodes.hpp"
#include "examples/layer_sweep/interruption.hpp"
#include "examples/layer_sweep/mini_batch.hpp"
#include "examples/layer_sweep/variants.hpp"
#include "lamina/model/train_step.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/policy/presets.hpp"

namespace layer_sweep {

/// GRPO with the token mean of DAPO: one weight for every token that was sampled.
using token_mean_grpo = lamina::basic_grpo<lamina::token_mean>;

/// Trains a model in place on a task by one row of the table.
///
/// Prompts and sampling noise are functions of (seed, step, place), so that runs with one seed see
/// the same problems and the same luck, whatever they train: common random numbers.
template <verifiable_task Task, lamina::tensor_backend Backend, lamina::policy_estimator Estimator>
class grpo_run {
 public:
  using model_type = decoder::transformer<Backend>;

  grpo_run(Task const& task, model_type& model, Estimator const& estimator, settings const& s,
           training const& row, std::uint64_t seed)
      : task_(task),
        model_((model.prepare(row.plan), model)),
        estimator_(estimator),
        settings_(s),
        plan_(row.plan),
        shuffled_(row.shuffled),
        seed_(seed),
        optimizer_(model.backend(), lamina::trained_parameters(model, row.plan),
                   {.learning_rate = row.variant.learning_rate,
                    .beta2 = 0.95,
                    .weight_decay = 0,
                    .clip_norm = 1.0,
                    .rates = row.rates}),
        sampler_(model.backend()) {}

  /// One step; returns the mean reward of its rollouts.
  double step(index_t step) {
    std::vector<typename Task::prompt> prompts;
    for (index_t index = 0; index < settings_.prompts; ++index) {
      prompts.push_back(task_.training_prompt(seed_, step, index));
    }
    index_t const group_size = settings_.group_size;
    episodes<Task> world(task_, prompts, group_size);
    decoder::rollouts const rollouts = sampler_.sample(model_, world.encoded(), group_size, world,
                                                       {.temperature = settings_.temperature,
                                                        .seed = seed_,
                                                        .step = static_cast<std::uint32_t>(step)},
                                                       world.max_length());
    std::vector<float> rewards = world.rewards();
    if (shuffled_) shuffle_groups(rewards, step);

    index_t const row_count = rollouts.row_count();
    auto const advantages =
        estimator_.advantages(lamina::vector_view<float const>(rewards),
                              lamina::prompt_groups::uniform(row_count, group_size));
    for (index_t part = 0; part < settings_.mini_batches; ++part) {
      mini_batch batch(rollouts, advantages.values, row_count * part / settings_.mini_batches,
                       row_count * (part + 1) / settings_.mini_batches, settings_.temperature);
      if (batch.empty()) continue;
      lamina::train_step(model_.backend(), model_, estimator_, plan_, batch.tokens(),
                         batch.policy(), batch.outputs(), optimizer_);
    }
    return advantages.statistics.reward_mean;
  }

 private:
  // A random permutation of every group's rewards (Fisher and Yates).
  void shuffle_groups(std::vector<float>& rewards, index_t step) const {
    auto const size = static_cast<std::size_t>(settings_.group_size);
    for (std::size_t first = 0; first < rewards.size(); first += size) {
      auto draws = draws_for(draw::shuffle, seed_, step, static_cast<index_t>(first / size));
      for (std::size_t left = size; left > 1; --left) {
        std::swap(rewards[first + left - 1],
                  rewards[first + draws.below(static_cast<std::uint32_t>(left))]);
      }
    }
  }

  Task task_;
  model_type& model_;
  Estimator const& estimator_;
  settings const& settings_;
  lamina::backward_plan plan_;
  bool shuffled_;
  std::uint64_t seed_;
  lamina::adamw<Backend, float> optimizer_;
  decoder::sampler<Backend> sampler_;
};

/// Makes the run with the estimator that the settings name; returns the mean reward of the last
/// step. Throws interruption between two steps once the program is told to stop.
template <verifiable_task Task, lamina::tensor_backend Backend>
double train(Task const& task, decoder::transformer<Backend>& model, settings const& s,
             training const& row, std::uint64_t seed) {
  auto const run = [&](auto const& estimator) {
    grpo_run<Task, Backend, std::remove_cvref_t<decltype(estimator)>> steps(task, model, estimator,
                                                                            s, row, seed);
    double reward = 0;
    for (index_t step = 0; step < s.steps; ++step) {
      throw_if_interrupted();
      reward = steps.step(step);
    }
    return reward;
  };
  if (s.algorithm == "dr_grpo") {
    return run(lamina::dr_grpo{.aggregation = {.length = task.response_length}});
  }
  return run(token_mean_grpo{.surrogate = {.clip_low = 0.2, .clip_high = 0.2}});
}

}  // namespace layer_sweep
