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

// Throws shape_error unless there are functions, and a weight for each or none at all.
template <real T>
void check_function_counts(char const* function, matrix_view<T const> rewards,
                           vector_view<double const> weights) {
  if (rewards.cols < 1) {
    throw_shape_error(function, ": function_rewards has ", rewards.rows, " rows and ", rewards.cols,
                      " columns; expected a column for each reward function");
  }
  if (!weights.empty() && weights.size != rewards.cols) {
    throw_shape_error(function, ": weights has ", weights.size, " entries, function_rewards ",
                      rewards.cols, " columns; expected one weight a function, or none");
  }
}

// The same, and config_error for a weight or a reward that is infinite or too large.
template <real T>
void check_function_rewards(char const* function, matrix_view<T const> rewards,
                            vector_view<double const> weights) {
  check_function_counts(function, rewards, weights);
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

// Rewards of several functions, with their weights. Infinite ones, which a device cannot refuse,
// are none.
template <real T>
struct weighed_rewards {
  matrix_view<T const> rewards;
  vector_view<double const> weights;

  LAMINA_HOST_DEVICE double weight(index_t function) const {
    return weights.size == 0 ? 1.0 : weights[function];
  }
  // Weighted sum over the functions that gave rollout i a reward; NaN if none did.
  LAMINA_HOST_DEVICE double operator()(index_t i) const {
    double sum = 0;
    bool any = false;
    for (index_t f = 0; f < rewards.cols; ++f) {
      double const reward = scored_reward(rewards(i, f));
      if (is_nan(reward)) continue;
      sum += weight(f) * reward;
      any = true;
    }
    return any ? sum : no_reward;
  }
  // Of a function in a group.
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE spread of_function(Lanes lanes, group_members members, index_t f) const {
    auto const& own = *this;
    return spread_of(lanes, members.size, [&own, members, f](index_t k) {
      return scored_reward(own.rewards(members[k], f));
    });
  }
};

// Their sum. A row is a rollout.
template <real T>
struct combined_reward_body {
  static constexpr row_schedule schedule = row_schedule::thread;
  weighed_rewards<T> functions;
  vector_view<T> combined;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() == 0) combined[row] = static_cast<T>(functions(row));
  }
};

// The spread of all, and the groups in which no function has any.
template <real T>
struct decoupled_rewards : weighed_rewards<T> {
  LAMINA_HOST_DEVICE bool flat(group_members members) const {
    for (index_t f = 0; f < this->rewards.cols; ++f) {
      if (!this->of_function(single_lane{}, members, f).flat) return false;
    }
    return true;
  }
};

// GDPO before it is whitened. A row is a group.
template <class Rule, real T>
struct decoupled_body {
  Rule rule;
  weighed_rewards<T> functions;
  group_view groups;
  raw_advantages out;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    group_members const members = groups.rollouts(row);
    for (index_t k = lanes.lane(); k < members.size; k += lanes.count()) {
      out.values[members[k]] = is_nan(functions(members[k])) ? no_reward : 0.0;
      out.kept[members[k]] = 0;
    }
    for (index_t f = 0; f < functions.rewards.cols; ++f) {
      spread const group = functions.of_function(lanes, members, f);
      bool const kept = keeps_reward(rule.lone, group);
      if (group.flat && !kept) continue;
      double const mean = kept ? 0.0 : group.mean;
      double const factor = functions.weight(f) * scale_factor(rule.scale, group, group);
      for (index_t k = lanes.lane(); k < members.size; k += lanes.count()) {
        double const reward = scored_reward(functions.rewards(members[k], f));
        if (is_nan(reward)) continue;
        out.values[members[k]] += (reward - mean) * factor;
        out.kept[members[k]] += kept ? reward * factor : 0.0;
      }
    }
  }
};

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
  host_rows<>{}.run(rewards.size,
                    detail::combined_reward_body<T>{{function_rewards, weights}, rewards});
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

  /// As those of group_relative; weights are read where the bodies run.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    detail::check_function_counts("weighted_rewards", batch.function_rewards, weights);
    rule.check(detail::with_rewards<T>(batch, {nullptr, batch.function_rewards.rows}), advantages);
  }
  static constexpr index_t scratch_per_rollout = 1 + detail::scratch_of<Rule>;
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    auto const combined = memory.take<T>(batch.function_rewards.rows);
    executor.run(combined.size,
                 detail::combined_reward_body<T>{{batch.function_rewards, weights}, combined});
    rule.run(executor, detail::with_rewards<T>(batch, combined), advantages, memory);
  }
};

/// A rule for rewards of whole rollouts, applied to the sum of each rollout's token rewards: its
/// outcome less what was charged per token, such as a KL penalty.
template <advantage_rule Rule = group_relative<>>
requires(!Rule::per_token) struct summed_token_rewards {
  static constexpr bool per_token = false;
  static constexpr bool reads_token_rewards = true;
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
    std::vector<T> totals(static_cast<std::size_t>(batch.offsets.size - 1));
    sum_tokens(host_rows<>{}, detail::arrays_of(batch), nullptr, vector_view<T>(totals));
    reward_batch<T> with_totals = batch;
    with_totals.rewards = totals;
    return rule.compute(with_totals, advantages);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    detail::check_token_sizes("summed_token_rewards", detail::with_rewards<T>(batch, {}),
                              batch.token_rewards.size);
    rule.check(detail::with_rewards<T>(batch, {nullptr, batch.offsets.size - 1}), advantages);
  }
  static constexpr index_t scratch_per_rollout = 1 + detail::scratch_of<Rule>;
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    auto const totals = memory.take<T>(batch.offsets.size - 1);
    sum_tokens(executor, batch, memory.record, totals);
    rule.run(executor, detail::with_rewards<T>(batch, totals), advantages, memory);
  }

 private:
  template <class Executor, real T>
  static void sum_tokens(Executor const& executor, reward_arrays<T> const& batch,
                         detail::advantage_record const* record, vector_view<T> totals) {
    // Without rewards: a batch without tokens has totals of 0.
    executor.run(totals.size,
                 detail::rollout_total_body<T>{detail::with_rewards<T>(batch, {}), record, totals});
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
    char const* const name = "decoupled_group_relative";
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    detail::check_function_rewards(name, batch.function_rewards, weights);
    detail::weighed_rewards<T> const combined{batch.function_rewards, weights};
    for (index_t i = 0; i < advantages.size && missing == missing_reward::refuse; ++i) {
      if (!is_nan(combined(i))) continue;
      throw_config_error(name, ": row ", i,
                         " of function_rewards is all NaN, expected a reward of at least one "
                         "function");
    }
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative; weights are read where the bodies run.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    char const* const name = "decoupled_group_relative";
    matrix_view<T const> const rewards = batch.function_rewards;
    scale.check();
    whitening.check();
    detail::check_function_counts(name, rewards, weights);
    if (rewards.rows != batch.groups.rollout_count() || advantages != rewards.rows) {
      throw_shape_error(name, ": function_rewards has ", rewards.rows, " rows, advantages ",
                        advantages, " entries, the groups hold ", batch.groups.rollout_count(),
                        " rollouts; expected three equal counts");
    }
  }
  static constexpr index_t scratch_per_rollout = 2;
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    detail::weighed_rewards<T> const functions{batch.function_rewards, weights};
    auto const values = memory.take<double>(advantages.size);
    auto const kept = memory.take<double>(advantages.size);
    detail::run_statistics(executor, detail::decoupled_rewards<T>{functions}, advantages.size,
                           batch.groups, memory.record);
    executor.run(batch.groups.group_count(), detail::decoupled_body<decoupled_group_relative, T>{
                                                 *this, functions, batch.groups, {values, kept}});
    whitening.run(executor, vector_view<double const>(values), vector_view<double const>(kept),
                  advantages);
  }
};

static_assert(advantage_rule<weighted_rewards<>> && advantage_rule<summed_token_rewards<>>);
static_assert(advantage_rule<decoupled_group_relative<>>);

LAMINA_NAMESPACE_END
