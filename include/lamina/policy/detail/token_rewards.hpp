// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rewards per token: where rules read them, in which order, and what is checked before.
#pragma once

#include <vector>

#include "lamina/core/error.hpp"
#include "lamina/policy/detail/advantage_pass.hpp"
#include "lamina/policy/reward_batch.hpp"
#include "lamina/policy/reward_statistics.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Whether rewards are taken from token_rewards; a batch without tokens needs none of either.
template <class Batch>
LAMINA_HOST_DEVICE bool rewards_are_per_token(Batch const& batch) {
  return batch.token_rewards.size > 0 || batch.rewards.size == 0;
}

// Calls f(token, active, reward) for the tokens of a rollout, last first. The rewards of active
// tokens are token_rewards, or, if there are none, the rollout's reward on its last active token;
// those of masked tokens are never read and 0.
template <class Batch, class F>
LAMINA_HOST_DEVICE void for_each_token_backward(Batch const& batch, index_t rollout, F const& f) {
  bool const per_token = rewards_are_per_token(batch);
  double outcome = per_token || batch.offsets[rollout] == batch.offsets[rollout + 1]
                       ? 0.0
                       : static_cast<double>(batch.rewards[rollout]);
  for (index_t t = batch.offsets[rollout + 1]; t-- > batch.offsets[rollout];) {
    if (!batch.active(t)) {
      f(t, false, 0.0);
    } else {
      f(t, true, per_token ? static_cast<double>(batch.token_rewards[t]) : outcome);
      outcome = 0;
    }
  }
}

// The reward of a rollout: the sum over its active tokens, or its entry in rewards if there are no
// token_rewards. NaN where a device finds one that is not finite.
template <class Batch>
LAMINA_HOST_DEVICE double rollout_reward(Batch const& batch, index_t rollout) {
  if (!rewards_are_per_token(batch)) return scored_reward(batch.rewards[rollout]);
  double total = 0;
  for_each_token_backward(batch, rollout, [&](index_t, bool, double reward) { total += reward; });
  return scored_reward(total);
}

// Throws shape_error unless there is one entry a token.
inline void check_size(char const* function, char const* name, index_t size, index_t tokens) {
  if (size == tokens) return;
  throw_shape_error(function, ": ", name, " has ", size, " entries, the batch has ", tokens,
                    " tokens");
}
template <real T>
void check_token_count(char const* function, char const* name, reward_batch<T> const& batch,
                       index_t size) {
  check_size(function, name, size, batch.token_count());
}

// The same, and config_error for an entry at an active token that is not finite or too large.
template <real T>
void check_active_numbers(char const* function, char const* name, reward_batch<T> const& batch,
                          vector_view<T const> values, double largest = largest_reward<T>) {
  check_token_count(function, name, batch, values.size);
  for (index_t t = 0; t < values.size; ++t) {
    if (batch.active(t)) {
      check_number(function, name, t, static_cast<double>(values[t]), largest);
    }
  }
}

// Sizes of what for_each_token_backward reads, with `tokens` advantages.
template <real T>
void check_token_sizes(char const* function, reward_arrays<T> const& batch, index_t tokens) {
  if (batch.offsets.empty()) check_offsets(function, "offsets", batch.offsets, "rollouts");
  if (!batch.mask.empty()) check_size(function, "mask", batch.mask.size, tokens);
  bool const without_tokens = batch.rewards.empty() && tokens == 0;
  if (!batch.token_rewards.empty()) {
    check_size(function, "token_rewards", batch.token_rewards.size, tokens);
  } else if (batch.rewards.size != batch.offsets.size - 1 && !without_tokens) {
    throw_shape_error(function, ": rewards has ", batch.rewards.size,
                      " entries and token_rewards none; expected ", batch.offsets.size - 1,
                      " rewards or ", tokens, " token_rewards");
  }
}

// Checks what for_each_token_backward reads, and the size of the advantages.
template <real T>
void check_token_rewards(char const* function, reward_batch<T> const& batch,
                         vector_view<T> advantages) {
  check_tokens(function, batch);
  check_token_count(function, "advantages", batch, advantages.size);
  check_token_sizes(function, arrays_of(batch), advantages.size);
  if (rewards_are_per_token(batch)) {
    check_active_numbers(function, "token_rewards", batch, batch.token_rewards);
  } else {
    check_numbers(function, "rewards", batch.rewards);
  }
}

inline void check_discount(char const* function, char const* name, double value) {
  if (!is_finite(value) || !(value >= 0 && value <= 1)) {
    throw_config_error(function, ": ", name, " is ", value, ", expected a value in 0 .. 1");
  }
}

// Tokens of a rollout; none that may be read where the offsets are broken.
struct rollout_tokens {
  index_t begin, end;
  bool readable;
};
template <real T>
LAMINA_HOST_DEVICE rollout_tokens tokens_of_rollout(reward_arrays<T> const& batch, index_t tokens,
                                                    index_t rollout,
                                                    advantage_record const* record) {
  index_t const rollouts = batch.offsets.size - 1;
  if (record->broken_offsets != 0) {
    return {tokens * rollout / rollouts, tokens * (rollout + 1) / rollouts, false};
  }
  return {batch.offsets[rollout], batch.offsets[rollout + 1], true};
}

// The reward of a rollout, from its tokens. A row is a rollout.
template <real T>
struct rollout_total_body {
  static constexpr row_schedule schedule = row_schedule::thread;
  reward_arrays<T> batch;
  advantage_record const* record;  // null on a host that has checked the offsets
  vector_view<T> totals;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() != 0) return;
    bool const readable = record == nullptr || record->broken_offsets == 0;
    totals[row] = static_cast<T>(readable ? rollout_reward(batch, row) : no_reward);
  }
};

// Doubles, by rollout.
struct double_rewards {
  vector_view<double const> rewards;
  LAMINA_HOST_DEVICE double operator()(index_t i) const { return rewards[i]; }
};

}  // namespace detail

LAMINA_NAMESPACE_END
