// expect: lamina: a rollout correction compares old with sampler log-probs
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An on-policy ratio reads no old log-probs, so there is nothing to correct by.
#include "lamina/policy/presets.hpp"

struct importance_weight {
  static constexpr bool reads_rollout_log_probs = true;
  double weight(double mismatch) const { return mismatch; }
};

#ifdef LAMINA_FIXED
using ratio = lamina::token_ratio;
#else
using ratio = lamina::on_policy_ratio;
#endif
lamina::policy_gradient<lamina::group_relative<>, ratio, lamina::ppo_clip, lamina::no_kl,
                        lamina::token_mean, importance_weight> estimator{};
