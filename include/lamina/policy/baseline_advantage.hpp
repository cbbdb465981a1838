// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Advantages of rollouts against other baselines than the mean of their group.
#pragma once

#include <limits>
#include <vector>

#include "lamina/policy/advantage.hpp"
#include "lamina/policy/whitening.hpp"

LAMINA_NAMESPACE_BEGIN

/// Leave-one-out advantages: each reward against the mean of the others of its group.
///
///   a_i = r_i - sum_{j != i} r_j / (n - 1) = (r_i - mean_G) n / (n - 1)
///
/// over the n scored rollouts of the group. Whitening = batch_whitening is TRL's
/// normalize_advantages. A group whose rewards are all equal gets advantages of exactly 0.
/// Source: Ahmadian et al. 2024 (RLOO, arXiv:2402.14740).
template <rollout_normalizer Whitening = no_whitening, class Defaults = advantage_defaults>
struct leave_one_out {
  static constexpr bool per_token = false;
  Whitening whitening{};
  missing_reward missing = Defaults::missing;
  lone_rollout lone = Defaults::lone;

  /// Reads rewards and groups. advantages [rollouts] is written and may alias rewards.
  /// A lone rollout with advantage 0 stays out of the whitening's statistics.
  /// Throws as group_relative does.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    detail::check_numbers("leave_one_out", "rewards", batch.rewards, missing);
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    whitening.check();
    detail::check_rewards("leave_one_out", batch, advantages);
  }
  static constexpr index_t scratch_per_rollout = is_whitened<Whitening> ? 2 : 0;
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    detail::run_statistics(executor, batch, memory.record);
    if constexpr (is_whitened<Whitening>) {
      auto const values = memory.take<double>(advantages.size);
      auto const kept = memory.take<double>(advantages.size);
      detail::run_groups(executor, *this, batch, memory.record,
                         detail::raw_advantages{values, kept});
      whitening.run(executor, vector_view<double const>(values), vector_view<double const>(kept),
                    advantages);
    } else {
      detail::run_groups(executor, *this, batch, memory.record,
                         detail::final_advantages<T>{advantages});
    }
  }
  /// What a reward of a group becomes, before it is whitened.
  template <lane_group Lanes, real T>
  LAMINA_HOST_DEVICE detail::shifted_scale of_group(Lanes /*lanes*/,
                                                    detail::group_rewards<T> const& own) const {
    double const n = static_cast<double>(own.group.scored);
    if (detail::keeps_reward(lone, own.group)) return {0.0, 1.0};
    return {own.group.mean, n < 2 ? detail::no_reward : n / (n - 1)};
  }
};

/// Advantages against the mean reward of the group weighted by length, the baseline of least
/// variance if the squared gradient of a rollout grows with its length.
///
///   a_i = r_i - sum_G n_j r_j / sum_G n_j,    n_j = active tokens of rollout j
///
/// Groups whose rewards are all equal, or without active tokens, get advantages of exactly 0.
/// Source: OPO (arXiv:2505.23585).
template <class Defaults = advantage_defaults>
struct basic_length_weighted_baseline {
  static constexpr bool per_token = false;
  missing_reward missing = Defaults::missing;
  lone_rollout lone = Defaults::lone;

  /// Reads rewards, groups, offsets and mask. advantages [rollouts] is written and may alias
  /// rewards. Throws as group_relative does, and shape_error for offsets or a mask that do not fit.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    detail::check_numbers("length_weighted_baseline", "rewards", batch.rewards, missing);
    detail::check_tokens("length_weighted_baseline", batch, batch.rewards.size);
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    detail::check_rewards("length_weighted_baseline", batch, advantages);
    detail::check_offset_count("length_weighted_baseline", batch, advantages);
  }
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    detail::run_group_rule(executor, *this, batch, advantages, memory.record);
  }
  /// What a reward of a group becomes.
  template <lane_group Lanes, real T>
  LAMINA_HOST_DEVICE detail::shifted_scale of_group(Lanes lanes,
                                                    detail::group_rewards<T> const& own) const {
    double tokens = 0, excess = 0;
    for (index_t k = 0; k < own.members.size; ++k) {
      double const length = is_nan(own[k]) ? 0.0 : own.active_tokens(lanes, k);
      if (length == 0 || k % lanes.count() != lanes.lane()) continue;
      tokens += length;
      excess += length * (own[k] - own.group.mean);
    }
    tokens = lanes.sum(tokens);  // no lane writes before all have read
    excess = lanes.sum(excess);
    if (detail::keeps_reward(lone, own.group)) return {0.0, 1.0};
    if (tokens == 0) return {0.0, detail::no_reward};
    return {own.group.mean + excess / tokens, 1.0};
  }
};
using length_weighted_baseline = basic_length_weighted_baseline<>;

namespace detail {

// Rewards that have another to be compared with.
template <real T>
struct beaten_rewards {
  vector_view<T const> rewards, greedy_rewards;
  LAMINA_HOST_DEVICE double operator()(index_t i) const {
    return is_finite(greedy_rewards[i]) ? scored_reward(rewards[i]) : no_reward;
  }
};

// A row is a rollout.
template <real T>
struct greedy_advantage_body {
  static constexpr row_schedule schedule = row_schedule::thread;
  vector_view<T const> rewards, greedy_rewards;
  vector_view<T> advantages;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() != 0) return;
    double const reward = beaten_rewards<T>{rewards, greedy_rewards}(row);
    advantages[row] = advantage_or_zero<T>(reward - static_cast<double>(greedy_rewards[row]));
  }
};

}  // namespace detail

/// The reward of the greedy completion of the prompt as the baseline, for rewards of whole
/// rollouts:
///
///   a_i = r_i - b_i
///
/// greedy_baseline is the same with rewards per token.
/// Source: ReMax (arXiv:2310.10505).
template <class Defaults = advantage_defaults>
struct basic_greedy_outcome_baseline {
  static constexpr bool per_token = false;
  missing_reward missing = Defaults::missing;

  /// Reads rewards and greedy_rewards [rollouts]. advantages [rollouts] is written and may alias
  /// either. Throws shape_error if the sizes differ, config_error for a reward that is not allowed.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    detail::check_numbers("greedy_outcome_baseline", "rewards", batch.rewards, missing);
    detail::check_numbers("greedy_outcome_baseline", "greedy_rewards", batch.greedy_rewards);
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    if (batch.greedy_rewards.size == batch.rewards.size && advantages == batch.rewards.size) return;
    throw_shape_error("greedy_outcome_baseline: rewards has ", batch.rewards.size,
                      " entries, greedy_rewards ", batch.greedy_rewards.size, ", advantages ",
                      advantages, "; expected three equal counts");
  }
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    detail::run_statistics(executor, detail::beaten_rewards<T>{batch.rewards, batch.greedy_rewards},
                           advantages.size, {}, memory.record);
    executor.run(advantages.size,
                 detail::greedy_advantage_body<T>{batch.rewards, batch.greedy_rewards, advantages});
  }
};
using greedy_outcome_baseline = basic_greedy_outcome_baseline<>;

namespace detail {

inline constexpr double below_any_reward = std::numeric_limits<double>::lowest();

// An advantage for the best reward alone.
struct best_alone {
  double best, advantage;
  LAMINA_HOST_DEVICE double operator()(double reward) const {
    return reward == best ? advantage : 0.0;
  }
};

}  // namespace detail

/// Only the best rollout of a group learns, by how much it beats the second best:
///
///   a_best = (r_best - r_second) * scale(s),    all others 0
///
/// Without a scale its expected gradient is that of the best reward of the group, each rollout
/// being compared with the best of the others. Ties for the best give 0. Source: arXiv:2503.19595;
/// verl (grpo_passk; Scale = no_scale without norm_adv_by_std_in_grpo).
template <group_scale Scale = by_group_std, class Defaults = advantage_defaults>
struct second_best {
  static constexpr bool per_token = false;
  Scale scale{};
  missing_reward missing = Defaults::missing;

  /// Reads rewards and groups. advantages [rollouts] is written and may alias rewards.
  /// Throws as group_relative does.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    detail::check_numbers("second_best", "rewards", batch.rewards, missing);
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    scale.check();
    detail::check_rewards("second_best", batch, advantages);
  }
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    detail::run_group_rule(executor, *this, batch, advantages, memory.record);
  }
  /// What a reward of a group becomes.
  template <lane_group Lanes, real T>
  LAMINA_HOST_DEVICE detail::best_alone of_group(Lanes lanes,
                                                 detail::group_rewards<T> const& own) const {
    double best = detail::below_any_reward, second = detail::below_any_reward, bests = 0;
    for (index_t k = lanes.lane(); k < own.members.size; k += lanes.count()) {
      best = own[k] > best ? own[k] : best;
    }
    best = lanes.max(best);
    for (index_t k = lanes.lane(); k < own.members.size; k += lanes.count()) {
      bests += own[k] == best ? 1 : 0;
      second = own[k] < best && own[k] > second ? own[k] : second;
    }
    bests = lanes.sum(bests);
    second = lanes.max(second);
    bool const wins = bests == 1 && !own.group.flat;
    double const factor = detail::scale_factor(scale, own.group, own.record->batch);
    return {best, wins ? (best - second) * factor : 0.0};
  }
};

/// Which rollouts compensated_group_mean takes to carry the gradient of the batch.
enum class gradient_carriers : bool {
  nonzero_rewards,  ///< those with a reward other than 0 (verl)
  varied_groups,    ///< those of groups with a spread (the paper)
};

namespace detail {

// The scored rollouts of the batch over those that carry its gradient. One row.
template <real T>
struct compensation_body {
  static constexpr row_schedule schedule = row_schedule::block;
  reward_arrays<T> batch;
  bool varied_groups;
  advantage_record* record;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t /*row*/) const {
    double carrying = 0;
    for (index_t g = lanes.lane(); g < batch.groups.group_count(); g += lanes.count()) {
      group_rewards<T> const own{batch, batch.groups.rollouts(g), {}, record};
      carrying += varied_groups ? scored_if_varied(own) : nonzero(own);
    }
    carrying = lanes.sum(carrying);
    if (lanes.lane() != 0) return;
    record->factor = static_cast<double>(record->batch.scored) / (carrying > 0 ? carrying : 1.0);
  }

 private:
  LAMINA_HOST_DEVICE static double scored_if_varied(group_rewards<T> const& own) {
    spread const group =
        spread_of(single_lane{}, own.members.size, [&](index_t k) { return own[k]; });
    return group.flat ? 0.0 : static_cast<double>(group.scored);
  }
  LAMINA_HOST_DEVICE static double nonzero(group_rewards<T> const& own) {
    double count = 0;
    for (index_t k = 0; k < own.members.size; ++k) count += own[k] < 0 || own[k] > 0 ? 1 : 0;
    return count;
  }
};

}  // namespace detail

/// Group means as baselines, and a common factor that makes up for rollouts without a gradient:
///
///   a_i = (B / max(1, C)) (r_i - mean_G) / normalizer
///
/// over the B scored rollouts of the batch, C of which are carriers.
/// Source: Chu et al. 2025 (GPG, arXiv:2504.02546); verl.
template <class Defaults = advantage_defaults>
struct basic_compensated_group_mean {
  static constexpr bool per_token = false;
  double normalizer = 1.0;
  gradient_carriers carriers = gradient_carriers::nonzero_rewards;
  missing_reward missing = Defaults::missing;
  lone_rollout lone = Defaults::lone;

  /// Reads rewards and groups. advantages [rollouts] is written and may alias rewards.
  /// Throws as group_relative does, and config_error unless normalizer is positive and finite.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    detail::check_numbers("compensated_group_mean", "rewards", batch.rewards, missing);
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    if (!is_finite(normalizer) || !(normalizer > 0)) {
      throw_config_error("compensated_group_mean: normalizer is ", normalizer,
                         ", expected a finite value > 0");
    }
    detail::check_rewards("compensated_group_mean", batch, advantages);
  }
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    detail::run_statistics(executor, batch, memory.record);
    executor.run(1, detail::compensation_body<T>{
                        batch, carriers == gradient_carriers::varied_groups, memory.record});
    detail::run_groups(executor, *this, batch, memory.record,
                       detail::final_advantages<T>{advantages});
  }
  /// What a reward of a group becomes.
  template <lane_group Lanes, real T>
  LAMINA_HOST_DEVICE detail::shifted_scale of_group(Lanes /*lanes*/,
                                                    detail::group_rewards<T> const& own) const {
    return {detail::keeps_reward(lone, own.group) ? 0.0 : own.group.mean,
            own.record->factor / normalizer};
  }
};
using compensated_group_mean = basic_compensated_group_mean<>;

static_assert(advantage_rule<leave_one_out<>> && advantage_rule<leave_one_out<batch_whitening>>);
static_assert(advantage_rule<length_weighted_baseline> && advantage_rule<greedy_outcome_baseline>);
static_assert(advantage_rule<second_best<>> && advantage_rule<second_best<no_scale>>);
static_assert(advantage_rule<compensated_group_mean>);

LAMINA_NAMESPACE_END
