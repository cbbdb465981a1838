// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The spread of rewards, in a group and in a batch, and the checks every advantage rule begins
// with.
#pragma once

#include <cmath>
#include <vector>

#include "lamina/core/error.hpp"
#include "lamina/core/lanes.hpp"
#include "lamina/core/scalar.hpp"
#include "lamina/policy/offsets.hpp"
#include "lamina/policy/reward_batch.hpp"

LAMINA_NAMESPACE_BEGIN

/// What the rewards of a batch looked like while they became advantages. The reward of a rollout is
/// its entry in rewards; for rules that read rewards per token, the sum over its active tokens; for
/// rules that read several rewards, their weighted sum.
struct advantage_statistics {
  /// Groups of the batch; 0 for rules that compare nothing within a group.
  index_t group_count = 0;
  /// Groups whose scored rewards are all equal, or that have fewer than two: relative to each
  /// other, their rollouts teach nothing.
  index_t zero_spread_groups = 0;
  /// Rollouts without a reward; possible only with missing_reward::exclude.
  index_t missing_rewards = 0;
  /// Mean over the scored rollouts.
  double reward_mean = 0;
  /// Sample standard deviation over the scored rollouts of the batch; 0 for fewer than two.
  double reward_std = 0;

  /// Fraction of groups with zero spread, counted per group.
  double zero_spread_fraction() const noexcept {
    return group_count > 0
               ? static_cast<double>(zero_spread_groups) / static_cast<double>(group_count)
               : 0.0;
  }
};

/// What it means that a rollout has no reward.
enum class missing_reward : bool {
  refuse,   ///< a mistake: config_error
  exclude,  ///< none was given: out of all statistics, advantage 0
};

namespace detail {

// Sums of squares of this many tokens of this size stay finite, so advantages always are.
template <real T>
inline constexpr double largest_reward = std::same_as<T, float> ? 1e30 : 1e140;

[[noreturn]] inline void throw_number_error(char const* function, char const* name, index_t index,
                                            double value, double largest, bool excludes) {
  throw_config_error(function, ": ", name, "[", index, "] is ", value,
                     ", expected a finite number of magnitude ", largest, " at most",
                     excludes ? ", or NaN for a missing reward" : "");
}

// Throws config_error unless `value` is finite and no larger than `largest`, or NaN and missing.
inline void check_number(char const* function, char const* name, index_t index, double value,
                         double largest, missing_reward missing = missing_reward::refuse) {
  bool const excludes = missing == missing_reward::exclude;
  if (is_nan(value) ? excludes : is_finite(value) && std::abs(value) <= largest) return;
  throw_number_error(function, name, index, value, largest, excludes);
}

template <real T>
void check_numbers(char const* function, char const* name, vector_view<T const> values,
                   missing_reward missing = missing_reward::refuse) {
  for (index_t i = 0; i < values.size; ++i) {
    check_number(function, name, i, static_cast<double>(values[i]), largest_reward<T>, missing);
  }
}

inline void check_epsilon(char const* function, double epsilon) {
  if (!is_finite(epsilon) || !(epsilon >= 0)) {
    throw_config_error(function, ": epsilon is ", epsilon, ", expected a finite value >= 0");
  }
}

// Throws shape_error unless rewards and advantages have one entry for each rollout of the groups.
template <real T>
void check_rewards(char const* function, reward_arrays<T> const& batch, index_t advantages) {
  if (batch.rewards.size == batch.groups.rollout_count() && advantages == batch.rewards.size) {
    return;
  }
  throw_shape_error(function, ": rewards has ", batch.rewards.size, " entries, advantages ",
                    advantages, ", the groups hold ", batch.groups.rollout_count(),
                    " rollouts; expected three equal counts");
}

// Throws shape_error unless there are offsets for `rollouts` rollouts.
template <real T>
void check_offset_count(char const* function, reward_arrays<T> const& batch, index_t rollouts) {
  if (batch.offsets.size == rollouts + 1) return;
  throw_shape_error(function, ": offsets has ", batch.offsets.size, " entries, expected ",
                    rollouts + 1, ", one more than there are rollouts");
}

// Throws shape_error unless offsets and mask describe the tokens of `rollouts` rollouts; -1 for any
// number of them.
template <real T>
void check_tokens(char const* function, reward_batch<T> const& batch, index_t rollouts = -1) {
  check_offsets(function, "offsets", batch.offsets, "rollouts");
  if (rollouts >= 0 && batch.offsets.size != rollouts + 1) {
    throw_shape_error(function, ": offsets has ", batch.offsets.size, " entries, expected ",
                      rollouts + 1, ", one more than there are rollouts");
  }
  if (!batch.mask.empty() && batch.mask.size != batch.token_count()) {
    throw_shape_error(function, ": mask has ", batch.mask.size, " entries, the batch has ",
                      batch.token_count(), " tokens");
  }
}

// Mean and sample standard deviation of some numbers, in double; NaN is no number.
struct spread {
  index_t scored = 0;
  double mean = 0;
  double deviation = 0;
  // Fewer than two numbers, or all equal. Equality, not a small deviation: (x - mean) would be
  // rounding noise of one sign, which a small epsilon blows up into a push on the whole group.
  bool flat = true;
};

// Takes numbers one after another, twice: add all of them, then add_square all of them. In between
// and at the end, lanes that have taken different numbers combine what they have.
class spread_sums {
 public:
  LAMINA_HOST_DEVICE void add(double x) {
    if (is_nan(x)) return;
    least_ = x < least_ ? x : least_;
    most_ = x > most_ ? x : most_;
    total_ += x;
    scored_ += 1;
  }
  // What others have added.
  LAMINA_HOST_DEVICE void merge(spread_sums const& other) {
    least_ = other.least_ < least_ ? other.least_ : least_;
    most_ = other.most_ > most_ ? other.most_ : most_;
    total_ += other.total_;
    scored_ += other.scored_;
    squares_ += other.squares_;
  }
  // Mean and count of what has been added.
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE spread mean(Lanes lanes) {
    scored_ = lanes.sum(scored_);
    total_ = lanes.sum(total_);
    least_ = -lanes.max(-least_);
    most_ = lanes.max(most_);
    spread result;
    result.scored = static_cast<index_t>(scored_);
    if (result.scored > 0) result.mean = least_ == most_ ? least_ : total_ / scored_;
    return result;
  }
  LAMINA_HOST_DEVICE void add_square(double x, double mean) {
    if (!is_nan(x)) squares_ += (x - mean) * (x - mean);
  }
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE spread deviation(Lanes lanes, spread result) {
    squares_ = lanes.sum(squares_);
    if (scored_ == 0 || least_ == most_) return result;
    result.deviation = std::sqrt(squares_ / (scored_ - 1));
    result.flat = result.deviation == 0;  // also where the squares underflow
    return result;
  }

 private:
  double scored_ = 0, total_ = 0, squares_ = 0;
  double least_ = 1.7976931348623157e308, most_ = -1.7976931348623157e308;
};

// The spread of at(0) .. at(count - 1), over the lanes.
template <lane_group Lanes, class At>
LAMINA_HOST_DEVICE spread spread_of(Lanes lanes, index_t count, At const& at) {
  spread_sums sums;
  for (index_t k = lanes.lane(); k < count; k += lanes.count()) sums.add(at(k));
  spread const result = sums.mean(lanes);
  for (index_t k = lanes.lane(); k < count; k += lanes.count()) sums.add_square(at(k), result.mean);
  return sums.deviation(lanes, result);
}
template <class At>
spread spread_of(index_t count, At const& at) {
  return spread_of(single_lane{}, count, at);
}

// Statistics of rewards that are not compared within groups.
LAMINA_HOST_DEVICE inline advantage_statistics statistics_of(spread const& batch,
                                                             index_t rollouts) {
  return {.missing_rewards = rollouts - batch.scored,
          .reward_mean = batch.mean,
          .reward_std = batch.deviation};
}

}  // namespace detail

LAMINA_NAMESPACE_END
