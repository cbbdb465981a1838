// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Advantage rules, and the first of them: rewards relative to the other rollouts of the prompt.
#pragma once

#include <cmath>
#include <concepts>
#include <vector>

#include "lamina/core/error.hpp"
#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"
#include "lamina/policy/detail/advantage_pass.hpp"
#include "lamina/policy/reward_batch.hpp"
#include "lamina/policy/reward_statistics.hpp"

LAMINA_NAMESPACE_BEGIN

/// Advantages with the statistics of the batch they came from.
template <real T>
struct group_advantages {
  std::vector<T> values;  ///< [rollouts], or [tokens] if per_token
  advantage_statistics statistics;
  bool per_token = false;

  /// For policy_batch::advantages: the values, or empty if they are per token.
  vector_view<T const> by_rollout() const noexcept {
    return per_token ? vector_view<T const>{} : vector_view<T const>(values);
  }
  /// For policy_batch::token_advantages: the values, or empty if they are per rollout.
  vector_view<T const> by_token() const noexcept {
    return per_token ? vector_view<T const>(values) : vector_view<T const>{};
  }
};

/// Turns rewards into advantages: a.compute(reward_batch, advantages) -> advantage_statistics.
/// A::per_token says whether it writes one advantage a token or one a rollout.
template <class A>
concept advantage_rule = copyable_value<A> &&
    requires(A const& a, reward_batch<double> const& batch, vector_view<double> out) {
  { a.compute(batch, out) } -> std::same_as<advantage_statistics>;
  { A::per_token } -> std::convertible_to<bool>;
};

/// What the only scored rollout of a group gets.
enum class lone_rollout : bool {
  zero,        ///< advantage 0: there is nothing to compare it with
  raw_reward,  ///< its reward, as if the group's mean were 0 and its standard deviation 1 (verl)
};

/// The defaults of options that systems set differently. A system's own are a type derived from
/// this one that redefines what differs; it is the Defaults parameter of rules and scales.
struct advantage_defaults {
  static constexpr double epsilon = 1e-6;
  static constexpr missing_reward missing = missing_reward::refuse;
  static constexpr lone_rollout lone = lone_rollout::zero;
};

/// Defaults of what divides by the spread of a whole batch: TRL's epsilon, the only source.
struct batch_defaults : advantage_defaults {
  static constexpr double epsilon = 1e-4;
};

/// A factor for centred rewards from a sample standard deviation: that of their group, or, if
/// S::of_batch, that of all scored rewards of the batch.
template <class S>
concept group_scale = copyable_value<S> && requires(S const& s, double deviation) {
  { s.scale(deviation) } -> std::same_as<double>;
  { S::of_batch } -> std::convertible_to<bool>;
  s.check();
};

/// Divides by the spread of the group: GRPO.
template <class Defaults = advantage_defaults>
struct basic_by_group_std {
  static constexpr bool of_batch = false;
  /// Added to the standard deviation, outside the root.
  double epsilon = Defaults::epsilon;

  LAMINA_HOST_DEVICE double scale(double group_std) const noexcept {
    return 1.0 / (group_std + epsilon);
  }
  void check() const { detail::check_epsilon("by_group_std", epsilon); }
};
using by_group_std = basic_by_group_std<>;

/// Divides by the spread of the group with its variance held above a floor, which shrinks the
/// advantages of groups that hardly vary: verl's vectorised GRPO until early 2026.
template <class Defaults = advantage_defaults>
struct basic_by_floored_group_std {
  static constexpr bool of_batch = false;
  double variance_floor = 1e-6;
  double epsilon = Defaults::epsilon;

  LAMINA_HOST_DEVICE double scale(double group_std) const noexcept {
    double const variance = group_std * group_std;
    return 1.0 / (std::sqrt(variance > variance_floor ? variance : variance_floor) + epsilon);
  }
  void check() const {
    detail::check_epsilon("by_floored_group_std", epsilon);
    if (!is_finite(variance_floor) || !(variance_floor >= 0)) {
      throw_config_error("by_floored_group_std: variance_floor is ", variance_floor,
                         ", expected a finite value >= 0");
    }
  }
};
using by_floored_group_std = basic_by_floored_group_std<>;

/// Divides by the spread of all scored rewards of the batch, so that groups that hardly vary are
/// not blown up. Source: LitePPO (arXiv:2508.08221).
template <class Defaults = batch_defaults>
struct basic_by_batch_std {
  static constexpr bool of_batch = true;
  /// Added to the standard deviation, outside the root.
  double epsilon = Defaults::epsilon;

  LAMINA_HOST_DEVICE double scale(double batch_std) const noexcept {
    return 1.0 / (batch_std + epsilon);
  }
  void check() const { detail::check_epsilon("by_batch_std", epsilon); }
};
using by_batch_std = basic_by_batch_std<>;

/// Leaves a centred reward as it is.
struct no_scale {
  static constexpr bool of_batch = false;
  LAMINA_HOST_DEVICE double scale(double /*deviation*/) const noexcept { return 1.0; }
  static constexpr void check() noexcept {}
};

namespace detail {

// The factor for the centred rewards of a group that has a spread or is taken for lone.
template <group_scale Scale>
LAMINA_HOST_DEVICE double scale_factor(Scale const& scale, spread const& group,
                                       spread const& batch) {
  spread const& of = Scale::of_batch ? batch : group;
  return scale.scale(of.flat ? 1.0 : of.deviation);
}

// Whether the only scored rollout of a group keeps its reward.
LAMINA_HOST_DEVICE inline bool keeps_reward(lone_rollout lone, spread const& group) {
  return group.scored == 1 && lone == lone_rollout::raw_reward;
}

// Advantages of a group that are (reward - shift) * factor.
struct shifted_scale {
  double shift = 0;
  double factor = 0;
  LAMINA_HOST_DEVICE double operator()(double reward) const { return (reward - shift) * factor; }
};

}  // namespace detail

/// Group-relative advantages: each reward against the mean of its own prompt group.
///
///   a_i = (r_i - mean_G) * scale(s),    s_G = sqrt(sum (r - mean_G)^2 / (n - 1))
///
/// Scale = by_group_std is GRPO (Shao et al. 2024, arXiv:2402.03300, section 4.1.2); Scale =
/// no_scale is Dr. GRPO (Liu et al. 2025, arXiv:2503.20783, section 3.2).
/// A group whose rewards are all equal gets advantages of exactly 0.
template <group_scale Scale = by_group_std, class Defaults = advantage_defaults>
struct group_relative {
  static constexpr bool per_token = false;
  Scale scale{};
  missing_reward missing = Defaults::missing;
  lone_rollout lone = Defaults::lone;

  /// Reads rewards [rollouts] (any scale; infinite never, NaN as `missing` says) and groups.
  /// advantages  [rollouts]  written; may alias rewards
  /// Throws shape_error if the sizes differ, config_error for a reward or option that is not
  /// allowed.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    detail::check_numbers("group_relative", "rewards", batch.rewards, missing);
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// compute in two parts, of which a device does the second in its memory. check looks at sizes
  /// and options and throws as compute does; run asks an executor for row bodies.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    scale.check();
    detail::check_rewards("group_relative", batch, advantages);
  }
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    detail::run_group_rule(executor, *this, batch, advantages, memory.record);
  }
  /// What a reward of a group becomes.
  template <lane_group Lanes, real T>
  LAMINA_HOST_DEVICE detail::shifted_scale of_group(Lanes /*lanes*/,
                                                    detail::group_rewards<T> const& own) const {
    return {detail::keeps_reward(lone, own.group) ? 0.0 : own.group.mean,
            detail::scale_factor(scale, own.group, own.record->batch)};
  }
};

static_assert(advantage_rule<group_relative<by_group_std>>);
static_assert(advantage_rule<group_relative<by_batch_std>>);
static_assert(advantage_rule<group_relative<no_scale>>);

LAMINA_NAMESPACE_END
