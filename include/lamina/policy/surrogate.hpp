// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Surrogate objectives: the policy term of the loss of one token and its derivative.
#pragma once

#include <cmath>
#include <concepts>

#include "lamina/core/error.hpp"
#include "lamina/core/scalar.hpp"

LAMINA_NAMESPACE_BEGIN

/// Beyond this many nats a log ratio carries no gradient and its exponential is not formed.
inline constexpr double log_ratio_limit = 20.0;

/// A log ratio cut to [-log_ratio_limit, log_ratio_limit]; NaN stays NaN.
LAMINA_HOST_DEVICE constexpr double bounded_log_ratio(double log_ratio) noexcept {
  return log_ratio > log_ratio_limit    ? log_ratio_limit
         : log_ratio < -log_ratio_limit ? -log_ratio_limit
                                        : log_ratio;
}

/// Which bound cut the gradient of a token.
enum class clip_side : signed char { low = -1, none = 0, high = 1 };

/// The policy term of one token.
struct surrogate_term {
  double value = 0;  ///< phi, to be minimised
  double slope = 0;  ///< d phi / d log-prob
  clip_side clipped = clip_side::none;
};

/// s.term(log_ratio, advantage) -> surrogate_term, callable on host and device; s.check() throws
/// config_error for options that make no sense.
template <class S>
concept policy_surrogate = std::copy_constructible<S> && requires(S const& s, double x) {
  { s.term(x, x) } -> std::same_as<surrogate_term>;
  s.check();
};

/// The clipped surrogate with separate bounds.
///
///   phi = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)
///   d phi / d log-prob = -A r, and 0 where A > 0 and r > 1 + clip_high or A < 0 and r < 1 -
///   clip_low
///
/// A ratio exactly on a bound is not clipped. Where |log r| > 20 the gradient is 0.
/// Source: Schulman et al. 2017 (arXiv:1707.06347), eq. 7; separate bounds: Yu et al. 2025 (DAPO,
/// arXiv:2503.14476), eq. 10.
struct ppo_clip {
  double clip_low = 0.2;
  double clip_high = 0.2;

  LAMINA_HOST_DEVICE surrogate_term term(double log_ratio, double advantage) const noexcept {
    if (advantage == 0) return {};
    bool const beyond = log_ratio > log_ratio_limit || log_ratio < -log_ratio_limit;
    double const ratio = std::exp(bounded_log_ratio(log_ratio));
    if (advantage > 0 && ratio > 1 + clip_high) {
      return {-(1 + clip_high) * advantage, 0, clip_side::high};
    }
    if (advantage < 0 && ratio < 1 - clip_low) {
      return {-(1 - clip_low) * advantage, 0, clip_side::low};
    }
    return {-ratio * advantage, beyond ? 0.0 : -ratio * advantage, clip_side::none};
  }

  void check() const {
    if (!(clip_low >= 0) || !(clip_low <= 1)) {
      throw_config_error("ppo_clip: clip_low is ", clip_low, ", expected 0..1");
    }
    if (!(clip_high >= 0) || !is_finite(clip_high)) {
      throw_config_error("ppo_clip: clip_high is ", clip_high, ", expected a finite value >= 0");
    }
  }
};

static_assert(policy_surrogate<ppo_clip>);

LAMINA_NAMESPACE_END
