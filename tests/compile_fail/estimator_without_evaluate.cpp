// expect: lamina: an estimator needs evaluate\(log_prob, old_log_prob
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A host's own estimator has everything but the one function that matters.
#include "lamina/policy/presets.hpp"

struct my_estimator {
  static constexpr bool reads_old_log_probs = false;
  static constexpr bool reads_rollout_log_probs = false;
  lamina::token_mean aggregation{};
  lamina::no_kl kl{};
  void check() const {}
#ifdef LAMINA_FIXED
  lamina::token_loss evaluate(double log_prob, double, double, double, double advantage,
                              double weight) const {
    return {.policy = -weight * advantage * log_prob, .d_log_prob = -weight * advantage};
  }
#endif
};
static_assert(lamina::check_estimator<my_estimator>());
