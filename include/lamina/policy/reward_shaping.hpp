// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What is added to rewards before advantages, and the controllers of coefficients between steps:
// values in, values out.
#pragma once

#include <type_traits>

#include "lamina/policy/detail/token_rewards.hpp"
#include "lamina/policy/divergence.hpp"

LAMINA_NAMESPACE_BEGIN

/// Soft overlong punishment: rewards fall linearly over the last `cache` tokens a response may
/// have.
///
///   0                              if n <= max_length - cache
///   -factor (n - (L - c)) / c      up to n = L = max_length, c = cache
///   -factor                        beyond
///
/// Source: Yu et al. 2025 (DAPO, arXiv:2503.14476, eq. 13), with factor 1, L = 20480 and c = 4096.
struct soft_overlong {
  /// L, the cap on response tokens; has to be set.
  index_t max_length = 0;
  /// c, the tokens before the cap over which the punishment grows; has to be set.
  index_t cache = 0;
  /// verl's penalty_factor.
  double factor = 1;
  /// False: the punishment keeps growing beyond max_length, as in verl.
  bool bounded = true;

  /// What is added to the reward of a response of `length` tokens.
  LAMINA_HOST_DEVICE double punishment(index_t length) const noexcept {
    index_t const over = length - (max_length - cache);
    if (over <= 0) return 0;
    if (bounded && over > cache) return -factor;
    return -factor * static_cast<double>(over) / static_cast<double>(cache);
  }

  /// Reads rewards [rollouts], offsets and mask; the length of a rollout is its active tokens.
  /// rewards  [rollouts]  written: reward + punishment; may alias batch.rewards
  /// Throws shape_error or config_error, naming what does not fit, before anything is written.
  template <real T>
  void apply(reward_batch<T> const& batch, vector_view<std::type_identity_t<T>> rewards) const {
    check();
    detail::check_tokens("soft_overlong", batch, batch.rewards.size);
    detail::check_numbers("soft_overlong", "rewards", batch.rewards);
    if (rewards.size != batch.rewards.size) {
      throw_shape_error("soft_overlong: rewards to write has ", rewards.size,
                        " entries, the batch has ", batch.rewards.size, " rollouts");
    }
    for (index_t i = 0; i < rewards.size; ++i) {
      double const added = punishment(batch.active_tokens(i));
      rewards[i] = static_cast<T>(static_cast<double>(batch.rewards[i]) + added);
    }
  }

  void check() const {
    if (cache < 1 || max_length < cache) {
      throw_config_error("soft_overlong: max_length is ", max_length, " and cache ", cache,
                         "; expected 1 <= cache <= max_length");
    }
    if (!is_finite(factor) || factor < 0) {
      throw_config_error("soft_overlong: factor is ", factor, ", expected a finite value >= 0");
    }
  }
};

/// Writes each rollout's reward to its last active token and 0 to its others.
///
/// Reads rewards [rollouts], offsets and mask.
/// token_rewards  [tokens]  written
/// Returns the number of rollouts without active tokens, whose rewards are on no token.
/// Throws shape_error or config_error, naming what does not fit, before anything is written.
template <real T>
index_t rewards_on_last_tokens(reward_batch<T> const& batch,
                               vector_view<std::type_identity_t<T>> token_rewards) {
  reward_batch<T> by_rollout = batch;
  by_rollout.token_rewards = {};
  detail::check_tokens("rewards_on_last_tokens", batch, batch.rewards.size);
  detail::check_numbers("rewards_on_last_tokens", "rewards", batch.rewards);
  detail::check_token_count("rewards_on_last_tokens", "token_rewards", batch, token_rewards.size);
  index_t without_tokens = 0;
  for (index_t i = 0; i < batch.rewards.size; ++i) {
    without_tokens += batch.active_tokens(i) == 0 ? 1 : 0;
    detail::for_each_token_backward(by_rollout, i, [&](index_t t, bool, double reward) {
      token_rewards[t] = static_cast<T>(reward);
    });
  }
  return without_tokens;
}

/// KL estimates of a batch, nats. All are 0 without active tokens.
struct measured_kl {
  double token_mean = 0;                ///< over active tokens
  double sequence_mean_token_mean = 0;  ///< over rollouts; what verl's controller is given
  double sequence_mean_token_sum = 0;   ///< over rollouts
};

/// KL to the reference policy as a part of the reward, a constant to the gradient:
///
///   per rollout   R_i - coefficient * sum_t KL_t     (TRL's RLOO)
///   per token     r_t - coefficient * KL_t           (verl, TRL's PPO)
///
/// with KL_t estimated from k = old_log_prob - reference_log_prob of the chosen token. k1 is the
/// unbiased choice here (Schulman 2020, "Approximating KL divergence"), and both systems' default.
template <kl_estimator Estimator = kl_k1>
struct kl_in_reward {
  /// 0.05 in TRL's RLOO and PPO, 0.001 in verl.
  double coefficient = 0.05;
  Estimator estimator{};

  /// Reads rewards [rollouts], old_log_probs, offsets and mask.
  /// reference_log_probs  [tokens]    never read where the mask is 0
  /// rewards              [rollouts]  written; may alias batch.rewards
  /// Throws shape_error or config_error, naming what does not fit, before anything is written.
  template <real T>
  measured_kl per_rollout(reward_batch<T> const& batch,
                          vector_view<std::type_identity_t<T> const> reference_log_probs,
                          vector_view<std::type_identity_t<T>> rewards) const {
    check(batch, reference_log_probs);
    detail::check_tokens("kl_in_reward", batch, batch.rewards.size);
    detail::check_numbers("kl_in_reward", "rewards", batch.rewards);
    if (rewards.size != batch.rewards.size) {
      throw_shape_error("kl_in_reward: rewards to write has ", rewards.size,
                        " entries, the batch has ", batch.rewards.size, " rollouts");
    }
    return measure(batch, [&](index_t i) {
      double sum = 0;
      for (index_t t = batch.offsets[i]; t < batch.offsets[i + 1]; ++t) {
        if (batch.active(t)) sum += kl_at(batch, reference_log_probs, t);
      }
      rewards[i] = static_cast<T>(static_cast<double>(batch.rewards[i]) - coefficient * sum);
      return sum;
    });
  }

  /// Reads token_rewards [tokens] or, where they are empty, rewards [rollouts], each on the last
  /// active token of its rollout; old_log_probs, offsets and mask.
  /// reference_log_probs  [tokens]  never read where the mask is 0
  /// token_rewards        [tokens]  written, 0 where the mask is 0; may alias batch.token_rewards
  /// Throws shape_error or config_error, naming what does not fit, before anything is written.
  template <real T>
  measured_kl per_token(reward_batch<T> const& batch,
                        vector_view<std::type_identity_t<T> const> reference_log_probs,
                        vector_view<std::type_identity_t<T>> token_rewards) const {
    detail::check_token_rewards("kl_in_reward", batch, token_rewards);
    check(batch, reference_log_probs);
    return measure(batch, [&](index_t i) {
      double sum = 0;
      detail::for_each_token_backward(batch, i, [&](index_t t, bool active, double reward) {
        double const kl = active ? kl_at(batch, reference_log_probs, t) : 0.0;
        sum += kl;
        token_rewards[t] = static_cast<T>(reward - coefficient * kl);
      });
      return sum;
    });
  }

 private:
  // Log-probs beyond this many nats are mistakes, and squares of them would leave float's range.
  static constexpr double largest_log_prob = 1e6;

  template <real T>
  double kl_at(reward_batch<T> const& batch, vector_view<T const> reference, index_t t) const {
    return estimator
        .at(static_cast<double>(batch.old_log_probs[t]) - static_cast<double>(reference[t]))
        .value;
  }

  // Calls sum(rollout), which gives the sum of the rollout's estimates.
  template <real T, class Sum>
  static measured_kl measure(reward_batch<T> const& batch, Sum const& sum) {
    measured_kl result;
    index_t tokens = 0;
    index_t const rollouts = batch.offsets.size - 1;
    for (index_t i = 0; i < rollouts; ++i) {
      index_t const active = batch.active_tokens(i);
      double const total = sum(i);
      tokens += active;
      result.sequence_mean_token_sum += total;
      if (active > 0) result.sequence_mean_token_mean += total / static_cast<double>(active);
    }
    if (tokens == 0) return {};
    result.token_mean = result.sequence_mean_token_sum / static_cast<double>(tokens);
    result.sequence_mean_token_mean /= static_cast<double>(rollouts);
    result.sequence_mean_token_sum /= static_cast<double>(rollouts);
    return result;
  }

  template <real T>
  void check(reward_batch<T> const& batch, vector_view<T const> reference) const {
    detail::check_tokens("kl_in_reward", batch);
    detail::check_active_numbers("kl_in_reward", "old_log_probs", batch, batch.old_log_probs,
                                 largest_log_prob);
    detail::check_active_numbers("kl_in_reward", "reference_log_probs", batch, reference,
                                 largest_log_prob);
    if (!is_finite(coefficient) || coefficient < 0) {
      throw_config_error("kl_in_reward: coefficient is ", coefficient,
                         ", expected a finite value >= 0");
    }
  }
};

/// Moves a KL coefficient so that the measured KL approaches a target:
///
///   next = coefficient (1 + clip(KL / target - 1, -limit, limit) samples / horizon)
///
/// Source: Ziegler et al. 2019 (arXiv:1909.08593, section 2); target and horizon are verl's.
struct adaptive_kl {
  double target = 0.1;     ///< nats
  double horizon = 10000;  ///< samples
  double limit = 0.2;      ///< largest proportional error

  /// The coefficient of the next step. `kl` is what the step measured over `samples` rollouts.
  double update(double coefficient, double kl, index_t samples) const {
    if (!(target > 0) || !(horizon > 0) || !(limit >= 0) || !is_finite(target) ||
        !is_finite(horizon) || !is_finite(limit)) {
      throw_config_error("adaptive_kl: target is ", target, ", horizon ", horizon, ", limit ",
                         limit, "; expected finite values, the first two > 0, the last >= 0");
    }
    double const reach = limit * static_cast<double>(samples) / horizon;
    if (samples < 0 || reach >= 1) {
      throw_config_error(
          "adaptive_kl: samples is ", samples, ", expected 0 or more, and fewer than ",
          "horizon / limit = ", horizon / limit, ": the coefficient has to stay positive");
    }
    if (!is_finite(kl) || !is_finite(coefficient) || coefficient < 0) {
      throw_config_error("adaptive_kl: coefficient is ", coefficient, " and kl ", kl,
                         "; expected finite values, the coefficient >= 0");
    }
    double const error = kl / target - 1;
    double const clipped = error < -limit ? -limit : error > limit ? limit : error;
    return coefficient * (1 + clipped * static_cast<double>(samples) / horizon);
  }
};

/// An entropy coefficient, and whether the step it is meant for uses it.
struct entropy_control {
  double coefficient = 0;
  bool applied = false;
  /// The coefficient of the entropy bonus.
  double bonus() const noexcept { return applied ? coefficient : 0.0; }
};

/// Moves an entropy coefficient so that the entropy does not fall below a target: one step up where
/// the measured entropy is at or below it, one step down where it is above; applied only after a
/// measurement at or below the target.
/// Source: He et al. 2025 (Skywork-OR1, arXiv:2505.22312); defaults of TRL.
struct adaptive_entropy {
  double target = 0.2;  ///< mean token entropy, nats
  double step = 0.005;
  double lowest = 0;
  double highest = 1;

  /// The control of the next optimizer step, from the mean entropy of the active tokens of this
  /// whole step, over all ranks and micro-batches.
  entropy_control update(entropy_control const& current, double entropy) const {
    if (!is_finite(target) || !is_finite(step) || !(step >= 0) || !is_finite(lowest) ||
        !is_finite(highest) || lowest > highest) {
      throw_config_error("adaptive_entropy: target is ", target, ", step ", step, ", lowest ",
                         lowest, ", highest ", highest,
                         "; expected finite values, step >= 0, lowest <= highest");
    }
    if (!is_finite(entropy) || !is_finite(current.coefficient)) {
      throw_config_error("adaptive_entropy: entropy is ", entropy, " and coefficient ",
                         current.coefficient, "; expected finite values");
    }
    bool const low = entropy <= target;
    double const moved = current.coefficient + (low ? step : -step);
    return {moved < lowest ? lowest : moved > highest ? highest : moved, low};
  }
};

LAMINA_NAMESPACE_END
