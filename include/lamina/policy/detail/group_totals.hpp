// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the groups of a call add up to in an objective over the rollouts of a group.
#pragma once

#include "lamina/core/lanes.hpp"
#include "lamina/policy/policy_batch.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// What a group, or all groups of a call, add up to. Counts are whole numbers.
struct group_totals {
  double loss = 0, active = 0, nonfinite = 0, entropy = 0, entropies = 0;

  template <class F>
  LAMINA_HOST_DEVICE static void for_each(group_totals& to, group_totals const& from, F const& f) {
    f(to.loss, from.loss), f(to.active, from.active), f(to.nonfinite, from.nonfinite);
    f(to.entropy, from.entropy), f(to.entropies, from.entropies);
  }
  LAMINA_HOST_DEVICE void add(group_totals const& other) {
    for_each(*this, other, [](double& sum, double x) { sum += x; });
  }
  // Over the lanes of a group that have added different ones.
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void combine(Lanes lanes) {
    for_each(*this, *this, [lanes](double& sum, double x) { sum = lanes.sum(x); });
  }
  LAMINA_HOST_DEVICE policy_result finish() const {
    policy_result result{.loss = loss, .policy_loss = loss};
    result.metrics.active_tokens = static_cast<index_t>(active);
    result.metrics.nonfinite_tokens = static_cast<index_t>(nonfinite);
    if (entropies > 0) result.metrics.entropy_mean = entropy / entropies;
    return result;
  }
};

}  // namespace detail

LAMINA_NAMESPACE_END
