// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Correction for a sampler whose probabilities differ from the trainer's.
#pragma once

#include <concepts>

#include "lamina/config.hpp"

LAMINA_NAMESPACE_BEGIN

/// A factor on the policy term of one token, treated as a constant: c.weight(mismatch) for
/// mismatch = log pi_old(trainer) - log pi_old(sampler). `reads_rollout_log_probs` says whether the
/// host has to provide the sampler's log-probs.
template <class C>
concept rollout_correction = std::copy_constructible<C> && requires(C const& c, double mismatch) {
  { c.weight(mismatch) } -> std::same_as<double>;
  { C::reads_rollout_log_probs } -> std::convertible_to<bool>;
};

/// The sampler is taken at its word.
struct no_correction {
  static constexpr bool reads_rollout_log_probs = false;
  LAMINA_HOST_DEVICE static constexpr double weight(double /*mismatch*/) noexcept { return 1.0; }
};

static_assert(rollout_correction<no_correction>);

LAMINA_NAMESPACE_END
