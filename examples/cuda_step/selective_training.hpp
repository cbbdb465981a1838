// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Selective GRPO with everything but the rewards on a device: sampling, forward and backward pass
// by plan, policy loss, AdamW over one layer. The task is to say a token as often as possible.
#pragma once

#include <vector>

#include "examples/decoder/device/sampler.hpp"
#include "examples/layer_sweep/mini_batch.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/model/transformer.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/policy/device_loss.hpp"
#include "lamina/policy/presets.hpp"

namespace cuda_step {

using lamina::index_t;
using lamina::vector_view;

/// What is trained, and how.
struct settings {
  decoder::config shape{};
  index_t layer = 0;  ///< the one that is trained
  std::int32_t token = 3;
  index_t prompt_count = 8;
  index_t group_size = 8;
  index_t max_length = 16;
  double learning_rate = 5e-3;
  std::uint64_t seed = 1;
};

/// What one step did.
struct outcome {
  double reward;  ///< mean share of the token among what was sampled
  lamina::policy_result policy;
  lamina::step_status optimizer;
};

/// A model on a device and its training.
///
/// Weight  what weights are stored in; with lamina::bf16 the optimizer keeps float masters of the
///         layer it trains
template <lamina::device_backend Backend, class Weight>
class selective_training {
 public:
  using model_type = decoder::transformer<Backend, Weight>;
  using T = typename Backend::scalar_type;

  selective_training(Backend const& backend, settings const& s)
      : backend_(backend),
        settings_(s),
        plan_(lamina::plan_backward(s.shape.layer_count, lamina::single_layer(s.layer))),
        model_(initialized(backend, s, plan_)),
        optimizer_(backend_, lamina::trained_parameters(model_, plan_),
                   {.learning_rate = s.learning_rate, .clip_norm = 1}),
        sampler_(backend_),
        report_(backend_, s.prompt_count * s.group_size) {}
  selective_training(selective_training const&) = delete;

  model_type& model() { return model_; }

  /// Samples, scores, and moves the layer once.
  ///
  /// repeat  repeat(count, step) calls step() `count` times, or has it done by a graph
  template <class Repeat>
  outcome step(Repeat const& repeat) {
    decoder::rollouts const rollouts = sample(repeat);
    std::vector<float> const rewards = shares(rollouts);
    auto const advantages = estimator_.advantages(
        vector_view<float const>(rewards),
        lamina::prompt_groups::uniform(rollouts.row_count(), settings_.group_size));
    layer_sweep::mini_batch const batch(rollouts, advantages.values, 0, rollouts.row_count());
    outcome result{advantages.statistics.reward_mean, {}, {}};
    if (batch.empty()) return result;

    decoder::device_batch<Backend> const tokens(backend_, batch.tokens(), settings_.shape);
    auto const logits = model_.forward(tokens, plan_);
    lamina::policy_batch<float> policy = batch.policy();
    auto const offsets = upload(policy.offsets);
    auto const chosen = upload(policy.token_ids);
    auto const old_log_probs = upload(policy.old_log_probs);
    auto const values = upload(policy.advantages);
    policy.offsets = offsets.view();
    policy.token_ids = chosen.view();
    policy.old_log_probs = old_log_probs.view();
    policy.advantages = values.view();
    lamina::device_vector<Backend, T> log_probs(backend_, logits.rows);
    lamina::device_vector<Backend, T> d_log_probs(backend_, logits.rows);
    // [step]
    lamina::policy_loss(backend_, estimator_, logits, policy,
                        {log_probs.view(), d_log_probs.view(), {}}, report_);
    model_.backward(logits, plan_);
    optimizer_.step();

    result.policy = report_.read(backend_);  // waits
    result.optimizer = optimizer_.read_status();
    // [/step]
    return result;
  }

 private:
  static model_type initialized(Backend const& backend, settings const& s,
                                lamina::backward_plan const& plan) {
    model_type model(backend, s.shape);
    model.initialize(s.seed);
    model.prepare(plan);
    return model;
  }

  template <class Repeat>
  decoder::rollouts sample(Repeat const& repeat) {
    std::vector<std::vector<std::int32_t>> prompts;
    for (index_t p = 0; p < settings_.prompt_count; ++p) {
      prompts.push_back({static_cast<std::int32_t>(p % settings_.shape.vocab)});
    }
    sampler_.start(model_, prompts, settings_.group_size, {.seed = settings_.seed, .step = step_++},
                   settings_.max_length);
    repeat(settings_.max_length - 2, [&] { sampler_.step(model_); });
    return sampler_.read();
  }

  /// Of the token among what each rollout sampled.
  std::vector<float> shares(decoder::rollouts const& rollouts) const {
    std::vector<float> result;
    for (std::size_t row = 0; row + 1 < rollouts.offsets.size(); ++row) {
      auto const first = static_cast<std::size_t>(rollouts.offsets[row]);
      auto const last = static_cast<std::size_t>(rollouts.offsets[row + 1]);
      float hits = 0, sampled = 0;
      for (std::size_t t = first; t < last; ++t) {
        sampled += rollouts.sampled[t];
        hits += rollouts.sampled[t] != 0 && rollouts.tokens[t] == settings_.token ? 1.0f : 0.0f;
      }
      result.push_back(hits / sampled);
    }
    return result;
  }

  template <class U>
  lamina::device_vector<Backend, U> upload(vector_view<U const> values) const {
    return {backend_, values};
  }

  Backend backend_;
  settings settings_;
  lamina::backward_plan plan_;
  model_type model_;
  lamina::grpo estimator_{};
  lamina::adamw<Backend, Weight> optimizer_;
  decoder::device_sampler<Backend> sampler_;
  lamina::policy_report<Backend> report_;
  std::uint32_t step_ = 0;
};

}  // namespace cuda_step
