// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a batch of rollouts was rewarded with: the input of every advantage rule, for hosts and for
// row bodies.
#pragma once

#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"
#include "lamina/policy/prompt_groups.hpp"

LAMINA_NAMESPACE_BEGIN

/// Rewards of the rollouts of a step and what else advantage rules read. A rollout is a sequence of
/// the policy batch (in multi-turn training: one call of the model). A rule reads only the fields
/// it names; the others may stay empty.
///
/// Groups   how rollouts of one prompt are told
/// Related  how rollouts of one trajectory are told, and those that started from one state
template <real T, class Groups, class Related>
struct basic_reward_batch {
  /// [rollouts] reward of each rollout.
  vector_view<T const> rewards{};
  /// Rollouts of the same prompt.
  Groups groups{};

  /// [rollouts + 1] tokens of rollout i are offsets[i] .. offsets[i + 1), as in policy_batch.
  vector_view<index_t const> offsets{};
  /// [tokens] 1 = sampled by the policy, 0 = padding or an observation; empty = all active.
  vector_view<std::uint8_t const> mask{};
  /// [tokens] reward of each token.
  vector_view<T const> token_rewards{};
  /// [tokens] value estimates at sampling time.
  vector_view<T const> values{};
  /// [tokens] log-probs of the chosen tokens at sampling time.
  vector_view<T const> old_log_probs{};
  /// [tokens] sum over the vocabulary of the squared probabilities at sampling time.
  vector_view<T const> squared_probabilities{};
  /// [tokens] weight a rollout correction gives each token; empty = 1 each.
  vector_view<T const> rollout_weights{};

  /// [rollouts] reward of the greedy completion of the same prompt.
  vector_view<T const> greedy_rewards{};
  /// [rollouts, functions] one column a reward function, NaN where it gave no reward.
  matrix_view<T const> function_rewards{};

  /// [rollouts] trajectory each rollout is a step of, steps in temporal order.
  Related trajectories{};
  /// [rollouts] environment step of each rollout: neighbours of a trajectory with equal numbers
  /// (two agents that act in turn) share one step; empty = a rollout is a step.
  vector_view<index_t const> environment_steps{};
  /// [rollouts] reward of the whole trajectory; empty = the sum of its step rewards.
  vector_view<T const> episode_rewards{};
  /// [rollouts] environment state each step started from.
  Related anchors{};
  /// [rollouts] 1 = the step's action was invalid; empty = all valid.
  vector_view<std::uint8_t const> invalid_actions{};

  LAMINA_HOST_DEVICE bool active(index_t token) const noexcept {
    return mask.size == 0 || mask[token] != 0;
  }
  /// The most that any field has of them.
  index_t rollout_count() const noexcept {
    index_t const counts[] = {rewards.size, groups.rollout_count(), offsets.size - 1,
                              function_rewards.rows};
    index_t most = 0;
    for (index_t count : counts) most = count > most ? count : most;
    return most;
  }
  /// These two read arrays, so they are for memory of the host.
  index_t token_count() const noexcept { return offsets.size > 0 ? offsets[offsets.size - 1] : 0; }
  index_t active_tokens(index_t rollout) const noexcept {
    if (mask.size == 0) return offsets[rollout + 1] - offsets[rollout];
    index_t count = 0;
    for (index_t t = offsets[rollout]; t < offsets[rollout + 1]; ++t) count += active(t) ? 1 : 0;
    return count;
  }
};

/// The batch of a host: trajectories and states are any numbers, equal ones being the same.
template <real T>
using reward_batch = basic_reward_batch<T, prompt_groups, vector_view<index_t const>>;

/// A batch as row bodies read it, in the memory that they work in, a device's for example:
/// trajectories and states are groups, groups.split(numbers) of the host.
template <real T>
using reward_arrays = basic_reward_batch<T, group_view, group_view>;

namespace detail {

// A batch of the host for row bodies, without trajectories and anchors.
template <real T>
reward_arrays<T> arrays_of(reward_batch<T> const& batch) noexcept {
  return {.rewards = batch.rewards,
          .groups = batch.groups.view(),
          .offsets = batch.offsets,
          .mask = batch.mask,
          .token_rewards = batch.token_rewards,
          .values = batch.values,
          .old_log_probs = batch.old_log_probs,
          .squared_probabilities = batch.squared_probabilities,
          .rollout_weights = batch.rollout_weights,
          .greedy_rewards = batch.greedy_rewards,
          .function_rewards = batch.function_rewards,
          .environment_steps = batch.environment_steps,
          .episode_rewards = batch.episode_rewards,
          .invalid_actions = batch.invalid_actions};
}

}  // namespace detail

LAMINA_NAMESPACE_END
