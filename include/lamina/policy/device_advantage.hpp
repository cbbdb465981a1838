// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Advantages on a device: rewards that lie in its memory become advantages there, group by group.
#pragma once

#include <limits>

#include "lamina/backend/device_vector.hpp"
#include "lamina/core/lanes.hpp"
#include "lamina/policy/advantage.hpp"
#include "lamina/policy/detail/device_arguments.hpp"

LAMINA_NAMESPACE_BEGIN

/// A rule whose advantages need nothing but the rewards of their group and the spread of the batch:
/// group_relative (GRPO, Dr. GRPO, Lite PPO) and leave_one_out without whitening (RLOO).
template <class R>
concept group_local_rule =
    advantage_rule<R> && !R::per_token && requires(R const& rule, detail::spread const& spread) {
  { rule.of_group(spread, spread) } -> std::same_as<detail::shifted_scale>;
  { rule.missing } -> std::convertible_to<missing_reward>;
};

namespace detail {

// What advantages of a batch leave in device memory.
struct advantage_record {
  advantage_statistics statistics{};
  spread batch{};
};

inline constexpr double no_reward = std::numeric_limits<double>::quiet_NaN();

// Rewards as doubles; a device cannot refuse infinite ones and takes them as missing.
template <real T>
LAMINA_HOST_DEVICE double scored_reward(vector_view<T const> rewards, index_t i) {
  return is_finite(rewards[i]) ? static_cast<double>(rewards[i]) : no_reward;
}

// The spread of the rewards of one group, or of all of them, over the lanes.
template <lane_group Lanes, real T>
LAMINA_HOST_DEVICE spread spread_of_rewards(Lanes lanes, vector_view<T const> rewards) {
  spread_sums sums;
  for (index_t i = lanes.lane(); i < rewards.size; i += lanes.count()) {
    sums.add(scored_reward(rewards, i));
  }
  spread const result = sums.mean(lanes);
  for (index_t i = lanes.lane(); i < rewards.size; i += lanes.count()) {
    sums.add_square(scored_reward(rewards, i), result.mean);
  }
  return sums.deviation(lanes, result);
}

// Statistics of the batch, before rewards may be overwritten. One row.
template <real T>
struct reward_statistics_body {
  static constexpr row_schedule schedule = row_schedule::block;
  vector_view<T const> rewards;
  index_t group_size;
  advantage_record* record;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t /*row*/) const {
    spread const batch = spread_of_rewards(lanes, rewards);
    double flat = 0;
    index_t const groups = rewards.size / group_size;
    for (index_t g = lanes.lane(); g < groups; g += lanes.count()) {
      flat += spread_of_rewards(single_lane{}, rewards.subview(g * group_size, group_size)).flat;
    }
    flat = lanes.sum(flat);
    if (lanes.lane() != 0) return;
    record->batch = batch;
    record->statistics = {.group_count = groups,
                          .zero_spread_groups = static_cast<index_t>(flat),
                          .missing_rewards = rewards.size - batch.scored,
                          .reward_mean = batch.mean,
                          .reward_std = batch.deviation};
  }
};

// A row is a group.
template <group_local_rule Rule, real T>
struct group_advantage_body {
  Rule rule;
  vector_view<T const> rewards;
  index_t group_size;
  advantage_record const* record;
  vector_view<T> advantages;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    vector_view<T const> const own = rewards.subview(row * group_size, group_size);
    shifted_scale const advantage = rule.of_group(spread_of_rewards(lanes, own), record->batch);
    for (index_t i = lanes.lane(); i < group_size; i += lanes.count()) {
      double const reward = scored_reward(own, i);
      advantages[row * group_size + i] = is_nan(reward) ? T(0) : static_cast<T>(advantage(reward));
    }
  }
};

}  // namespace detail

/// Where advantages on a device leave the statistics of their rewards.
template <device_backend Backend>
class advantage_report {
 public:
  explicit advantage_report(Backend const& backend) : record_(backend, 1) {}

  /// The last statistics, in the memory of the device.
  advantage_statistics const* on_device() const noexcept {
    return &record_.view().data->statistics;
  }
  /// Waits for the device and returns the statistics of the last rewards. Throws config_error if
  /// rewards were missing, or infinite, under a rule that refuses that; their advantages are 0.
  advantage_statistics read(Backend const& backend) const {
    advantage_statistics const statistics = record_.to_host(backend)[0].statistics;
    if (missing_ == missing_reward::refuse && statistics.missing_rewards > 0) {
      throw_config_error("advantage_report::read: ", statistics.missing_rewards,
                         " rewards were not finite, expected finite rewards, or a rule with "
                         "missing_reward::exclude");
    }
    return statistics;
  }

  /// The memory, for advantages by a rule with that option.
  detail::advantage_record* begin(missing_reward missing) {
    missing_ = missing;
    return record_.view().data;
  }

 private:
  device_vector<Backend, detail::advantage_record> record_;
  missing_reward missing_ = missing_reward::refuse;
};

/// Advantages of consecutive groups of `group_size` rollouts, with all arrays in the memory of the
/// device; the rewards never come to the host. Nothing waits.
///
/// rewards     [rollouts]  of the groups, one after another; NaN, as infinity, is a missing one
/// advantages  [rollouts]  written; may alias rewards
/// Values and statistics are those of rule.compute, to rounding. Throws shape_error if the sizes
/// differ or group_size does not divide them, config_error for options that make no sense,
/// device_error for arrays that the device cannot use.
template <device_backend Backend, class Rule, real T>
void compute_advantages(Backend const& backend, Rule const& rule, vector_view<T const> rewards,
                        index_t group_size, vector_view<T> advantages,
                        advantage_report<Backend>& report) {
  static_assert(group_local_rule<Rule>,
                "lamina: on a device advantages come from rules that need the rewards of a group "
                "alone: group_relative, and leave_one_out without whitening");
  if constexpr (requires { rule.scale.check(); }) rule.scale.check();
  if (group_size < 1 || rewards.size % group_size != 0 || advantages.size != rewards.size) {
    throw_shape_error("compute_advantages: rewards has ", rewards.size, " entries, advantages ",
                      advantages.size, ", group_size is ", group_size,
                      "; expected equal counts and a group_size >= 1 that divides them");
  }
  detail::device_arguments arguments(backend, "compute_advantages");
  arguments.reads("rewards", rewards);
  arguments.writes("advantages", advantages, rewards.data);
  detail::advantage_record* const record = report.begin(rule.missing);
  backend.executor().run(1, detail::reward_statistics_body<T>{rewards, group_size, record});
  backend.executor().run(
      rewards.size / group_size,
      detail::group_advantage_body<Rule, T>{rule, rewards, group_size, record, advantages});
}

LAMINA_NAMESPACE_END
