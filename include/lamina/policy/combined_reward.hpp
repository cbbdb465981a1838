// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Several reward functions: their weighted sum as one reward, or each normalised on its own.
#pragma once

#include <limits>
#include <type_traits>
#include <vector>

#include "lamina/policy/advantage.hpp"
#include "lamina/policy/detail/token_rewards.hpp"
#include "lamina/policy/whitening.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Throws shape_error or config_error unless there are functions, a weight for each (or none at
// all), and no reward that is infinite.
template <real T>
void check_function_rewards(char const* function, matrix_view<T const> rewards,
                            vector_view<double const> weights) {
  if (rewards.cols < 1) {
    throw_shape_error(function, ": function_rewards has ", rewards.rows, " rows and ", rewards.cols,
                      " columns; expected a column for each reward function");
  }
  if (!weights.empty() && weights.size != rewards.cols) {
    throw_shape_error(function, ": weights has ", weights.size, " entries, function_rewards ",
                      rewards.cols, " columns; expected one weight a function, or none");
  }
  for (index_t f = 0; f < weights.size; ++f) {
    check_number(function, "weights", f, weights[f], 1e6);
  }
  for (index_t i = 0; i < rewards.rows; ++i) {
    for (index_t f = 0; f < rewards.cols; ++f) {
      double const reward = static_cast<double>(rewards(i, f));
      if (is_nan(reward) || (is_finite(reward) && std::abs(reward) <= 1e-6 * largest_reward<T>)) {
        continue;
      }
      throw_config_error(function, ": function_rewards(", i, ", ", f, ") is ", reward,
                         ", expected a finite number of magnitude ", 1e-6 * largest_reward<T>,
                         " at most, or NaN where the function gave no reward");
    }
  }
}

inline double weight_of(vector_view<double const> weights, index_t function) {
  return weights.empty() ? 1.0 : weights[function];
}

// Weighted sum over the functions that gave rollout i a reward; NaN if none did.
template <real T>
double combined_reward(matrix_view<T const> rewards, vector_view<double const> weights, index_t i) {
  double sum = 0;
  bool any = false;
  for (index_t f = 0; f < rewards.cols; ++f) {
    double const reward = static_cast<double>(rewards(i, f));
    if (is_nan(reward)) continue;
    sum += weight_of(weights, f) * reward;
    any = true;
  }
  return any ? sum : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace detail

/// One reward a rollout from several reward functions:
///
///   r_i = sum_f w_f r_if    over the functions f that gave rollout i a reward
///
/// function_rewards  [rollouts, functions]  NaN where a function gave none: it contributes 0
/// weights           [functions]            empty = 1 each
/// rewards           [rollouts]             written; NaN where no function gave a reward
/// Throws shape_error for sizes that do not fit, config_error for a reward or a weight that is not
/// finite, before anything is written. Source: TRL (grpo_trainer.py, sum_then_normalize).
template <real T>
void combine_rewards(matrix_view<T const> function_rewards, vector_view<double const> weights,
                     std::type_identity_t<vector_view<T>> rewards) {
  detail::check_function_rewards("combine_rewards", function_rewards, weights);
  if (rewards.size != function_rewards.rows) {
    throw_shape_error("combine_rewards: rewards has ", rewards.size, " entries, function_rewards ",
                      function_rewards.rows, " rows; expected equal counts");
  }
  for (index_t i = 0; i < rewards.size; ++i) {
    rewards[i] = static_cast<T>(detail::combined_reward(function_rewards, weights, i));
  }
}

/// A rule applied to the weighted sum of several rewards, as combine_rewards forms it. What a
/// rollout without any reward gets is for the rule to say.
template <advantage_rule Rule = group_relative<>>
struct weighted_rewards {
  static constexpr bool per_token = Rule::per_token;
  static constexpr bool reads_function_rewards = true;
  Rule rule{};
  /// [functions], not owned; empty = 1 each.
  vector_view<double const> weights{};

  /// Reads function_rewards and what the rule reads, except rewards.
  /// advantages  [rollouts], or [tokens] if the rule works per token; written
  /// Throws as combine_rewards and the rule do.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    std::vector<T> combined(static_cast<std::size_t>(batch.function_rewards.rows));
    combine_rewards(batch.function_rewards, weights, vector_view<T>(combined));
    reward_batch<T> with_sum = batch;
    with_sum.rewards = combined;
    return rule.compute(with_sum, advantages);
  }
};

/// A rule for rewards of whole rollouts, applied to the sum of each rollout's token rewards: its
/// outcome less what was charged per token, such as a KL penalty.
template <advantage_rule Rule = group_relative<>>
requires(!Rule::per_token) struct summed_token_rewards {
  static constexpr bool per_token = false;
  Rule rule{};

  /// Reads offsets, mask, token_rewards at active tokens, and what the rule reads except rewards.
  /// advantages  [rollouts]  written
  /// Throws shape_error for sizes that do not fit, config_error for a token reward that is not
  /// finite, and as the rule does.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    detail::check_tokens("summed_token_rewards", batch);
    detail::check_active_numbers("summed_token_rewards", "token_rewards", batch,
                                 batch.token_rewards);
    reward_batch<T> with_totals = batch;
    with_totals.rewards = {};  // a batch without tokens has totals of 0
    std::vector<T> totals;
    for (double total : detail::rollout_rewards(with_totals)) {
      totals.push_back(static_cast<T>(total));
    }
    with_totals.rewards = totals;
    return rule.compute(with_totals, advantages);
  }
};

/// Each reward function normalised within the group on its own, then summed, then whitened over the
/// batch, so that no function drowns the others: GDPO.
///
///   z_if = (r_if - mean_G r_f) * scale(s_G(r_f)),    z_i = sum_f w_f z_if
///   a_i  = (z_i - mean z) / (s_batch(z) + epsilon)
///
/// over the functions f that gave rollout i a reward. A function whose rewards in a group are all
/// equal contributes 0 there; for the only rollout of a group that it rewarded, `lone` decides.
/// Source: GDPO (arXiv:2601.05242); the defaults are those of TRL (grpo_trainer.py,
/// normalize_then_sum). verl is token_whitened<decoupled_group_relative<by_group_std,
/// no_whitening>> with lone_rollout::raw_reward.
template <group_scale Scale = basic_by_group_std<batch_defaults>,
          rollout_normalizer Whitening = batch_whitening, class Defaults = advantage_defaults>
struct decoupled_group_relative {
  static_assert(!Scale::of_batch,
                "lamina: decoupled_group_relative divides each reward by its spread in the group; "
                "use by_group_std or no_scale, not a scale of the whole batch");
  static constexpr bool per_token = false;
  static constexpr bool reads_function_rewards = true;
  Scale scale{};
  Whitening whitening{};
  /// What a rollout means to which no function gave a reward.
  missing_reward missing = Defaults::missing;
  lone_rollout lone = Defaults::lone;
  /// [functions], not owned; empty = 1 each.
  vector_view<double const> weights{};

  /// Reads function_rewards and groups.
  /// advantages  [rollouts]  written; may alias function_rewards if there is one function
  /// A group has zero spread if no function has any there. Throws as combine_rewards does, and
  /// config_error for a rollout without any reward unless missing says exclude.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    check(batch, advantages);
    matrix_view<T const> const rewards = batch.function_rewards;
    auto const combined = [&](index_t i) { return detail::combined_reward(rewards, weights, i); };
    std::vector<double> values(static_cast<std::size_t>(rewards.rows));  // NaN: no reward
    vector_view<double> const z(values);
    double sum = 0;  // the z of a group add up to 0, except for rewards that were kept
    index_t zero_spread = 0;
    advantage_statistics statistics = detail::for_each_group(
        batch.groups, combined, [&](auto members, auto const& /*group*/, auto const& /*all*/) {
          bool flat = true;
          for (index_t i : members) z[i] = is_nan(combined(i)) ? combined(i) : 0.0;
          for (index_t f = 0; f < rewards.cols; ++f) {
            auto const reward = [&](index_t i) { return static_cast<double>(rewards(i, f)); };
            detail::spread const group =
                detail::spread_of(members.size, [&](index_t k) { return reward(members[k]); });
            bool const kept = detail::keeps_reward(lone, group);
            flat = flat && group.flat;
            if (group.flat && !kept) continue;
            double const mean = kept ? 0.0 : group.mean;
            double const factor =
                detail::weight_of(weights, f) * detail::scale_factor(scale, group, group);
            for (index_t i : members) {
              if (is_nan(reward(i))) continue;
              z[i] += (reward(i) - mean) * factor;
              sum += kept ? reward(i) * factor : 0.0;
            }
          }
          zero_spread += flat ? 1 : 0;
        });
    statistics.zero_spread_groups = zero_spread;
    whitening.finish(z, sum, advantages);
    return statistics;
  }

 private:
  template <real T>
  void check(reward_batch<T> const& batch, vector_view<T> advantages) const {
    char const* const name = "decoupled_group_relative";
    matrix_view<T const> const rewards = batch.function_rewards;
    scale.check();
    whitening.check();
    detail::check_function_rewards(name, rewards, weights);
    if (rewards.rows != batch.groups.rollout_count() || advantages.size != rewards.rows) {
      throw_shape_error(name, ": function_rewards has ", rewards.rows, " rows, advantages ",
                        advantages.size, " entries, the groups hold ", batch.groups.rollout_count(),
                        " rollouts; expected three equal counts");
    }
    for (index_t i = 0; i < rewards.rows && missing == missing_reward::refuse; ++i) {
      if (!is_nan(detail::combined_reward(rewards, weights, i))) continue;
      throw_config_error(name, ": row ", i,
                         " of function_rewards is all NaN, expected a reward of at least one "
                         "function");
    }
  }
};

static_assert(advantage_rule<weighted_rewards<>> && advantage_rule<summed_token_rewards<>>);
static_assert(advantage_rule<decoupled_group_relative<>>);

LAMINA_NAMESPACE_END
