// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Importance ratios: how far the current policy has moved from the one that sampled.
#pragma once

#include <concepts>

#include "lamina/config.hpp"

LAMINA_NAMESPACE_BEGIN

/// The log ratio a surrogate is built on. `reads_old_log_probs` says whether the host has to
/// provide them.
template <class R>
concept policy_ratio = std::copy_constructible<R> && requires(R const& r, double log_prob) {
  { r.log_ratio(log_prob, log_prob) } -> std::same_as<double>;
  { R::reads_old_log_probs } -> std::convertible_to<bool>;
};

/// r_t = pi(y_t) / pi_old(y_t), one ratio a token.
struct token_ratio {
  static constexpr bool reads_old_log_probs = true;
  LAMINA_HOST_DEVICE double log_ratio(double log_prob, double old_log_prob) const noexcept {
    return log_prob - old_log_prob;
  }
};

/// The ratio of a policy that has not moved since it sampled: exactly 1, with the derivative of
/// pi / stop_gradient(pi). Exact where one optimizer step follows each rollout, and free of the
/// rounding between a sampler's and a trainer's log-probabilities.
struct on_policy_ratio {
  static constexpr bool reads_old_log_probs = false;
  LAMINA_HOST_DEVICE double log_ratio(double /*log_prob*/, double /*old*/) const noexcept {
    return 0.0;
  }
};

static_assert(policy_ratio<token_ratio> && policy_ratio<on_policy_ratio>);

LAMINA_NAMESPACE_END
