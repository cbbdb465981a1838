// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Selective GRPO on a device from sampling to the optimizer: no token, no reward and no advantage
// comes to the host. The task is to say a token as often as possible.
#pragma once

#include <vector>

#include "examples/decoder/device/sampler.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/model/train_step.hpp"
#include "lamina/model/transformer.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/policy/device_advantage.hpp"
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

  index_t rollout_count() const { return prompt_count * group_size; }
  /// That a rollout samples: all but its prompt, which is one token.
  index_t sampled_count() const { return max_length - 1; }
  index_t token_count() const { return rollout_count() * sampled_count(); }
};

/// What one step did.
struct outcome {
  double reward;  ///< mean share of the token among what was sampled
  lamina::policy_result policy;
  lamina::step_status optimizer;
};

/// From what was sampled, [rollouts, max_length], to what is trained on, [tokens]: the token before
/// each sampled one, the sampled one and its log-prob; and the reward of a rollout, the share of
/// `token` among what it sampled. A row is a rollout.
struct place_and_score {
  decoder::growing_rollouts rollouts;
  std::int32_t token;
  vector_view<std::int32_t> inputs;
  vector_view<std::int32_t> chosen;
  vector_view<float> old_log_probs;
  vector_view<float> rewards;

  template <lamina::lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const sampled = rollouts.tokens.cols - 1;
    double hits = 0;
    for (index_t p = lanes.lane(); p < sampled; p += lanes.count()) {
      std::int32_t const next = rollouts.tokens(row, p + 1);
      inputs[row * sampled + p] = rollouts.tokens(row, p);
      chosen[row * sampled + p] = next;
      old_log_probs[row * sampled + p] = rollouts.log_probs(row, p + 1);
      hits += next == token ? 1 : 0;
    }
    hits = lanes.sum(hits);
    if (lanes.lane() == 0) rewards[row] = static_cast<float>(hits / static_cast<double>(sampled));
  }
};

/// A model on a device and its training.
///
/// Weight  what weights are stored in; with lamina::bf16 the optimizer keeps float masters of the
///         layer it trains
template <lamina::device_backend Backend, class Weight>
class selective_training {
 public:
  using model_type = decoder::transformer<Backend, Weight>;

  selective_training(Backend const& backend, settings const& s)
      : backend_(backend),
        settings_(s),
        plan_(lamina::plan_backward(s.shape.layer_count, lamina::single_layer(s.layer))),
        model_(initialized(backend, s, plan_)),
        optimizer_(backend_, lamina::trained_parameters(model_, plan_),
                   {.learning_rate = s.learning_rate, .clip_norm = 1}),
        sampler_(backend_),
        batch_(backend_, all_positions(s), s.shape),
        offsets_(backend_, all_positions(s).offsets),
        chosen_(backend_, s.token_count()),
        old_log_probs_(backend_, s.token_count()),
        log_probs_(backend_, s.token_count()),
        d_log_probs_(backend_, s.token_count()),
        rewards_(backend_, s.rollout_count()),
        advantages_(backend_, s.rollout_count()),
        rewarded_(backend_),
        report_(backend_, s.rollout_count()) {}
  selective_training(selective_training const&) = delete;

  model_type& model() { return model_; }

  /// Samples, scores, and moves the layer once. Waits for the prompts, which the host knows, and
  /// for nothing else.
  ///
  /// repeat  repeat(count, step) calls step() `count` times, or has it done by a graph
  template <class Repeat>
  void step(Repeat const& repeat) {
    std::vector<std::vector<std::int32_t>> prompts;
    for (index_t p = 0; p < settings_.prompt_count; ++p) {
      prompts.push_back({static_cast<std::int32_t>(p % settings_.shape.vocab)});
    }
    sampler_.start(model_, prompts, settings_.group_size, {.seed = settings_.seed, .step = step_++},
                   settings_.max_length);
    repeat(settings_.sampled_count() - 1, [&] { sampler_.step(model_); });

    index_t const rollouts = settings_.rollout_count();
    lamina::policy_batch<float> const policy{
        .offsets = offsets_.view(),
        .token_ids = chosen_.view(),
        .old_log_probs = old_log_probs_.view(),
        .advantages = advantages_.view(),
        .denominators = {.sequences = rollouts, .tokens = settings_.token_count()}};
    lamina::policy_outputs<float> const outputs{log_probs_.view(), d_log_probs_.view(), {}};
    // [step]
    backend_.executor().run(
        rollouts, place_and_score{sampler_.on_device(), settings_.token, batch_.overwrite_tokens(),
                                  chosen_.view(), old_log_probs_.view(), rewards_.view()});
    lamina::compute_advantages(
        backend_, estimator_.advantage,
        {.rewards = rewards_.view(),
         .groups = lamina::group_view::uniform(rollouts, settings_.group_size)},
        advantages_.view(), rewarded_);
    lamina::train_step(backend_, model_, estimator_, plan_, batch_, policy, outputs, report_,
                       optimizer_);
    // [/step]
  }

  /// Waits for the last step, and returns what it did.
  outcome read() {
    return {rewarded_.read(backend_).reward_mean, report_.read(backend_), optimizer_.read_status()};
  }

 private:
  static model_type initialized(Backend const& backend, settings const& s,
                                lamina::backward_plan const& plan) {
    model_type model(backend, s.shape);
    model.initialize(s.seed);
    model.prepare(plan);
    return model;
  }

  /// Rollouts of one length, of whose tokens all but the last predict another. The tokens are to be
  /// overwritten.
  static decoder::token_batch all_positions(settings const& s) {
    decoder::token_batch batch;
    batch.tokens.resize(static_cast<std::size_t>(s.token_count()));
    for (index_t row = 0; row <= s.rollout_count(); ++row) {
      batch.offsets.push_back(row * s.sampled_count());
    }
    for (index_t t = 0; t < s.token_count(); ++t) batch.logit_rows.push_back(t);
    return batch;
  }

  template <class U>
  using array = lamina::device_vector<Backend, U>;

  Backend backend_;
  settings settings_;
  lamina::backward_plan plan_;
  model_type model_;
  lamina::grpo estimator_{};
  lamina::adamw<Backend, Weight> optimizer_;
  decoder::device_sampler<Backend> sampler_;
  decoder::device_batch<Backend> batch_;
  decoder::mirrored_array<Backend, index_t> offsets_;
  array<std::int32_t> chosen_;
  array<float> old_log_probs_, log_probs_, d_log_probs_, rewards_, advantages_;
  lamina::advantage_report<Backend> rewarded_;
  lamina::policy_report<Backend> report_;
  std::uint32_t step_ = 0;
};

}  // namespace cuda_step
