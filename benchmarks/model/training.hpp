// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Training on one batch of rollouts as a GRPO trainer does it: log-probs of a reference, then
// epochs of forward, loss, backward and AdamW, from a prefix cache or not.
#pragma once

#include <optional>
#include <utility>

#include "benchmarks/model/smollm2.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/model/prefix_cache.hpp"
#include "lamina/model/train_step.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/policy/presets.hpp"

namespace model_bench {

/// What is done with a batch.
struct procedure {
  index_t epochs = 1;
  bool reference = false;
  bool prefix_reuse = false;
};

/// The step as lamina::plan_memory and lamina::count_flops want it.
inline lamina::step_shape step_of(decoder::token_batch const& batch, procedure const& p) {
  return {.sequences = lamina::sequences_at(batch.offsets),
          .logit_rows = static_cast<index_t>(batch.logit_rows.size()),
          .epochs = p.epochs,
          .reference = p.reference,
          .prefix_reuse = p.prefix_reuse};
}

/// One selection of a model in training. Several may share the model.
class training {
 public:
  /// The batch has as many logit rows in every sequence. `model` and `batch` must outlive this.
  training(model_type& model, lamina::backward_plan const& plan, decoder::token_batch const& batch,
           procedure const& p)
      : model_(model),
        plan_(plan),
        batch_(batch),
        procedure_(p),
        optimizer_(model.backend(), trained(), {.learning_rate = 1e-6}) {
    auto const rows = batch.logit_rows.size();
    index_t const sequences = batch.sequence_count();
    for (index_t s = 0; s <= sequences; ++s) {
      offsets_.push_back(s * static_cast<index_t>(rows) / sequences);
    }
    for (index_t s = 0; s < sequences; ++s) advantages_.push_back(s % 2 == 0 ? 1.0f : -1.0f);
    for (index_t const row : batch.logit_rows) {
      chosen_.push_back(batch.tokens[static_cast<std::size_t>(row + 1) % batch.tokens.size()]);
    }
    // Those of uniform random weights: near enough to be clipped nowhere, and free.
    old_log_probs_.assign(rows, -std::log(static_cast<float>(model.shape().vocab)));
    reference_log_probs_ = log_probs_ = d_log_probs_ = old_log_probs_;
    if (p.prefix_reuse) cache_.emplace(model, plan);
    if (p.reference) {
      for (auto const& parameter : optimizer_.parameters()) {
        reference_.emplace_back(parameter.weight.begin(), parameter.weight.end());
      }
    }
  }

  /// All that is done with one batch.
  void run() {
    std::optional<prefix_type> prefix;
    if (cache_) prefix = cache_->fill(model_, batch_);
    if (procedure_.reference) {
      swap_reference();
      auto const logits = prefix ? prefix->forward(model_, batch_, plan_) : model_.forward(batch_);
      lamina::token_log_probs(model_.backend(), logits,
                              lamina::vector_view<std::int32_t const>(chosen_), {}, 1.0,
                              lamina::vector_view<float>(reference_log_probs_));
      swap_reference();
    }
    for (index_t epoch = 0; epoch < procedure_.epochs; ++epoch) {
      auto const step = [&](auto const&... from) {
        lamina::train_step(model_.backend(), model_, estimator_, plan_, from..., batch_, policy(),
                           {log_probs_, d_log_probs_, {}}, optimizer_);
      };
      prefix ? step(*prefix) : step();
    }
  }

 private:
  using cache_type = lamina::prefix_cache<model_type>;
  using prefix_type = cache_type::prefix_type;

  std::vector<lamina::parameter_view<float>> trained() {
    model_.prepare(plan_);
    return lamina::trained_parameters(model_, plan_);
  }
  lamina::policy_batch<float> policy() const {
    return {.offsets = offsets_,
            .token_ids = chosen_,
            .old_log_probs = old_log_probs_,
            .reference_log_probs = reference_log_probs_,
            .advantages = advantages_,
            .denominators = {.sequences = batch_.sequence_count(), .tokens = offsets_.back()}};
  }
  // The reference's copy of what is trained, into the model and out again.
  void swap_reference() {
    for (std::size_t i = 0; i < reference_.size(); ++i) {
      auto const& weight = optimizer_.parameters()[i].weight;
      std::swap_ranges(weight.begin(), weight.end(), reference_[i].begin());
    }
  }

  model_type& model_;
  lamina::backward_plan plan_;
  decoder::token_batch const& batch_;
  procedure procedure_;
  lamina::adamw<backend_type, float> optimizer_;
  lamina::grpo estimator_{.kl = {.coefficient = 0.01}};
  std::optional<cache_type> cache_;
  std::vector<std::vector<float>> reference_;
  std::vector<index_t> offsets_;
  std::vector<std::int32_t> chosen_;
  std::vector<float> advantages_, old_log_probs_, reference_log_probs_, log_probs_, d_log_probs_;
};

}  // namespace model_bench
