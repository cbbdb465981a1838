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
    whitening.check();
    detail::check_rewards("leave_one_out", batch, advantages, missing);
    auto const reward = detail::rewards_of(batch);
    double const none = std::numeric_limits<double>::quiet_NaN();
    std::vector<double> values(static_cast<std::size_t>(advantages.size), none);
    double sum = 0;  // the advantages of a group add up to 0, unless it is one that was kept
    advantage_statistics const statistics = detail::for_each_group(
        batch.groups, reward, [&](auto members, auto const& group, auto const& /*all*/) {
          bool const kept = detail::keeps_reward(lone, group);
          detail::shifted_scale const advantage = of_group(group);
          for (index_t i : members) {
            if (is_nan(reward(i)) || (group.scored < 2 && !kept)) continue;
            values[static_cast<std::size_t>(i)] = advantage(reward(i));
            sum += kept ? reward(i) : 0.0;
          }
        });
    whitening.finish(values, sum, advantages);
    return statistics;
  }

  /// What the spread of a group makes of its rewards, before they are whitened.
  LAMINA_HOST_DEVICE detail::shifted_scale of_group(detail::spread const& group) const {
    double const n = static_cast<double>(group.scored);
    if (detail::keeps_reward(lone, group)) return {0.0, 1.0};
    return {group.mean, n < 2 ? 0.0 : n / (n - 1)};
  }
  LAMINA_HOST_DEVICE detail::shifted_scale of_group(detail::spread const& group,
                                                    detail::spread const& /*batch*/) const
      requires(std::same_as<Whitening, no_whitening>) {
    return of_group(group);
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
    detail::check_rewards("length_weighted_baseline", batch, advantages, missing);
    detail::check_tokens("length_weighted_baseline", batch, batch.rewards.size);
    auto const reward = detail::rewards_of(batch);
    return detail::for_each_group(
        batch.groups, reward, [&](auto members, auto const& group, auto const& /*all*/) {
          double tokens = 0, excess = 0;
          for (index_t i : members) {
            if (is_nan(reward(i))) continue;
            double const length = static_cast<double>(batch.active_tokens(i));
            tokens += length;
            excess += length * (reward(i) - group.mean);
          }
          bool const raw = detail::keeps_reward(lone, group);
          bool const silent = tokens == 0;
          double const baseline = raw ? 0.0 : group.mean + (silent ? 0.0 : excess / tokens);
          for (index_t i : members) {
            bool const zero = (silent && !raw) || is_nan(reward(i));
            advantages[i] = zero ? T(0) : static_cast<T>(reward(i) - baseline);
          }
        });
  }
};
using length_weighted_baseline = basic_length_weighted_baseline<>;

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
    if (batch.greedy_rewards.size != batch.rewards.size || advantages.size != batch.rewards.size) {
      throw_shape_error("greedy_outcome_baseline: rewards has ", batch.rewards.size,
                        " entries, greedy_rewards ", batch.greedy_rewards.size, ", advantages ",
                        advantages.size, "; expected three equal counts");
    }
    detail::check_numbers("greedy_outcome_baseline", "rewards", batch.rewards, missing);
    detail::check_numbers("greedy_outcome_baseline", "greedy_rewards", batch.greedy_rewards);
    auto const reward = detail::rewards_of(batch);
    detail::spread const all = detail::spread_of(batch.rewards.size, reward);
    for (index_t i = 0; i < advantages.size; ++i) {
      double const baseline = static_cast<double>(batch.greedy_rewards[i]);
      advantages[i] = is_nan(reward(i)) ? T(0) : static_cast<T>(reward(i) - baseline);
    }
    return detail::statistics_of(all, advantages.size);
  }
};
using greedy_outcome_baseline = basic_greedy_outcome_baseline<>;

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
    scale.check();
    detail::check_rewards("second_best", batch, advantages, missing);
    auto const reward = detail::rewards_of(batch);
    return detail::for_each_group(
        batch.groups, reward, [&](auto members, auto const& group, auto const& all) {
          index_t best = -1, second = -1;
          for (index_t i : members) {
            if (is_nan(reward(i))) continue;
            if (best < 0 || reward(i) > reward(best)) {
              second = best;
              best = i;
            } else if (second < 0 || reward(i) > reward(second)) {
              second = i;
            }
          }
          double const lead = group.flat ? 0.0 : reward(best) - reward(second);
          for (index_t i : members) advantages[i] = T(0);
          if (lead > 0) {
            advantages[best] = static_cast<T>(lead * detail::scale_factor(scale, group, all));
          }
        });
  }
};

namespace detail {
struct constant_scale {
  static constexpr bool of_batch = false;
  double factor;
  LAMINA_HOST_DEVICE double scale(double /*deviation*/) const noexcept { return factor; }
  static constexpr void check() noexcept {}
};
}  // namespace detail

/// Which rollouts compensated_group_mean takes to carry the gradient of the batch.
enum class gradient_carriers : bool {
  nonzero_rewards,  ///< those with a reward other than 0 (verl)
  varied_groups,    ///< those of groups with a spread (the paper)
};

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
    if (!is_finite(normalizer) || !(normalizer > 0)) {
      throw_config_error("compensated_group_mean: normalizer is ", normalizer,
                         ", expected a finite value > 0");
    }
    detail::check_rewards("compensated_group_mean", batch, advantages, missing);
    auto const reward = detail::rewards_of(batch);
    index_t scored = 0, carrying = 0;
    detail::for_each_group(batch.groups, reward,
                           [&](auto members, auto const& group, auto const& /*all*/) {
                             scored += group.scored;
                             if (carriers == gradient_carriers::varied_groups) {
                               carrying += group.flat ? 0 : group.scored;
                               return;
                             }
                             for (index_t i : members)
                               carrying += !is_nan(reward(i)) && reward(i) != 0 ? 1 : 0;
                           });
    double const factor =
        static_cast<double>(scored) / static_cast<double>(carrying > 0 ? carrying : 1) / normalizer;
    return group_relative<detail::constant_scale>{
        .scale = {factor}, .missing = missing, .lone = lone}
        .compute(batch, advantages);
  }
};
using compensated_group_mean = basic_compensated_group_mean<>;

static_assert(advantage_rule<leave_one_out<>> && advantage_rule<leave_one_out<batch_whitening>>);
static_assert(advantage_rule<length_weighted_baseline> && advantage_rule<greedy_outcome_baseline>);
static_assert(advantage_rule<second_best<>> && advantage_rule<second_best<no_scale>>);
static_assert(advantage_rule<compensated_group_mean>);

LAMINA_NAMESPACE_END
