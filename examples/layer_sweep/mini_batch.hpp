// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What one optimizer step of a policy gradient trains on: the rollouts of some prompt groups that
// can teach anything, normalised by all of them.
#pragma once

#include <vector>

#include "examples/decoder/batch.hpp"
#include "examples/decoder/sampler.hpp"
#include "lamina/policy/logits_loss.hpp"

namespace layer_sweep {

using lamina::index_t;

/// Rollouts cut into the model's batch and the policy's batch of the same tokens.
///
/// Rollouts with advantage 0, those of groups whose rewards are all equal, have no gradient: they
/// are left out of the forward and backward pass, but counted in the denominators, so that the
/// step size does not depend on how many groups happened to be mixed.
class mini_batch {
 public:
  /// The rollouts of rows [first, last).
  ///
  /// advantages   [rows]  of all rollouts
  /// temperature  at which they were sampled
  mini_batch(decoder::rollouts const& rollouts, std::vector<float> const& advantages, index_t first,
             index_t last, double temperature = 1)
      : temperature_(temperature) {
    std::vector<std::int32_t> tokens;
    std::vector<index_t> offsets{0};
    std::vector<std::uint8_t> sampled;
    for (index_t row = first; row < last; ++row) {
      auto const r = static_cast<std::size_t>(row);
      auto const begin = rollouts.offsets[r], end = rollouts.offsets[r + 1];
      ++denominators_.sequences;
      for (index_t t = begin; t < end; ++t) {
        denominators_.tokens += rollouts.sampled[static_cast<std::size_t>(t)];
      }
      if (advantages[r] == 0) continue;
      for (index_t t = begin; t < end; ++t) {
        auto const p = static_cast<std::size_t>(t);
        tokens.push_back(rollouts.tokens[p]);
        sampled.push_back(rollouts.sampled[p]);
        if (rollouts.sampled[p] != 0) old_log_probs_.push_back(rollouts.log_probs[p]);
      }
      offsets.push_back(static_cast<index_t>(tokens.size()));
      offsets_.push_back(static_cast<index_t>(old_log_probs_.size()));
      advantages_.push_back(advantages[r]);
    }
    if (!empty()) {
      tokens_ = decoder::predict(std::move(tokens), std::move(offsets), sampled, &chosen_);
      log_probs_.resize(chosen_.size());
      d_log_probs_.resize(chosen_.size());
    }
  }

  /// Whether no rollout teaches anything; there is nothing to step on then.
  bool empty() const { return advantages_.empty(); }

  /// Whole sequences; one logit row a sampled token.
  decoder::token_batch const& tokens() const { return tokens_; }

  /// The sampled tokens only, in the same order.
  lamina::policy_batch<float> policy() const {
    return {.offsets = offsets_,
            .token_ids = chosen_,
            .old_log_probs = old_log_probs_,
            .advantages = advantages_,
            .denominators = denominators_,
            .temperature = temperature_};
  }

  lamina::policy_outputs<float> outputs() { return {log_probs_, d_log_probs_, {}}; }

 private:
  double temperature_;
  decoder::token_batch tokens_;
  std::vector<index_t> offsets_{0};
  std::vector<std::int32_t> chosen_;
  std::vector<float> old_log_probs_;
  std::vector<float> advantages_;
  lamina::loss_denominators denominators_;
  std::vector<float> log_probs_;
  std::vector<float> d_log_probs_;
};

}  // namespace layer_sweep
