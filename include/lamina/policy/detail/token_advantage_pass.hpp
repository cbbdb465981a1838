// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Advantages per token as row bodies: a row is a rollout, whose tokens are walked from the last to
// the first.
#pragma once

#include "lamina/policy/detail/token_rewards.hpp"
#include "lamina/policy/whitening.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Tokens whose rollout has no usable reward stay out of what is whitened.
template <class Whitening>
LAMINA_HOST_DEVICE constexpr double absent_token() {
  return is_whitened<Whitening> ? no_reward : 0.0;
}

// rule.start(batch, rollout) is the state before the last token; state.usable(batch, own) says
// whether what it reads beside rewards is finite; state.take(token, active, reward) is the
// advantage of a token, and state.put(token, active) leaves what else it knows about it.
template <class Rule, class Whitening, real T>
struct token_advantage_body {
  static constexpr row_schedule schedule = row_schedule::thread;
  Rule rule;
  reward_arrays<T> batch;
  advantage_record const* record;
  vector_view<double> totals;
  vector_view<T> advantages;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() != 0) return;
    rollout_tokens const own = tokens_of_rollout(batch, advantages.size, row, record);
    if (!own.readable) {
      totals[row] = no_reward;
      for (index_t t = own.begin; t < own.end; ++t) advantages[t] = 0;
      return;
    }
    auto state = rule.start(batch, row);
    bool const usable = state.usable(batch, own);
    double const total = usable ? rollout_reward(batch, row) : no_reward;
    totals[row] = total;
    T const absent = static_cast<T>(absent_token<Whitening>());
    auto const& all = advantages;
    for_each_token_backward(batch, row, [&](index_t t, bool active, double reward) {
      T const advantage = static_cast<T>(state.take(t, active, reward));
      all[t] = !active ? T(0) : is_nan(total) ? absent : advantage;
      state.put(t, active && !is_nan(total));
    });
  }
};

// Rewards still to come.
struct returns_to_go {
  double gamma;
  bool cut;  // at masked tokens
  double to_go;

  template <real T>
  LAMINA_HOST_DEVICE returns_to_go start(reward_arrays<T> const&, index_t) const {
    return *this;
  }
  template <real T>
  LAMINA_HOST_DEVICE bool usable(reward_arrays<T> const&, rollout_tokens const&) const {
    return true;
  }
  LAMINA_HOST_DEVICE double take(index_t, bool active, double reward) {
    if (active) {
      to_go = reward + gamma * to_go;
    } else if (cut) {
      to_go = 0;
    }
    return to_go;
  }
  LAMINA_HOST_DEVICE void put(index_t, bool) const {}
};

// The same against a baseline.
struct beaten_returns {
  double baseline, to_go;

  template <real T>
  LAMINA_HOST_DEVICE beaten_returns start(reward_arrays<T> const& batch, index_t row) const {
    return {static_cast<double>(batch.greedy_rewards[row]), 0};
  }
  template <real T>
  LAMINA_HOST_DEVICE bool usable(reward_arrays<T> const&, rollout_tokens const&) const {
    return is_finite(baseline);
  }
  LAMINA_HOST_DEVICE double take(index_t, bool, double reward) {
    to_go += reward;
    return to_go - baseline;
  }
  LAMINA_HOST_DEVICE void put(index_t, bool) const {}
};

// Generalised advantage estimates, and what the critic should have said.
template <real T>
struct generalised_estimates {
  double gamma, lambda;
  vector_view<T const> values;
  vector_view<T> returns;
  double next_value = 0, advantage = 0;

  LAMINA_HOST_DEVICE generalised_estimates start(reward_arrays<T> const&, index_t) const {
    return *this;
  }
  LAMINA_HOST_DEVICE bool usable(reward_arrays<T> const& batch, rollout_tokens const& own) const {
    for (index_t t = own.begin; t < own.end; ++t) {
      if (batch.active(t) && !is_finite(values[t])) return false;
    }
    return true;
  }
  LAMINA_HOST_DEVICE double take(index_t t, bool active, double reward) {
    if (!active) return 0;
    double const value = static_cast<double>(values[t]);
    advantage = reward + gamma * next_value - value + gamma * lambda * advantage;
    next_value = value;
    return advantage;
  }
  LAMINA_HOST_DEVICE void put(index_t t, bool known) const {
    if (returns.size > 0) returns[t] = known ? static_cast<T>(advantage + next_value) : T(0);
  }
};

template <class Executor, class Rule, class Whitening, real T>
void run_token_rule(Executor const& executor, Rule const& rule, Whitening const& whitening,
                    reward_arrays<T> const& batch, vector_view<T> advantages,
                    advantage_memory memory) {
  auto const totals = memory.take<double>(batch.offsets.size - 1);
  executor.run(totals.size, token_advantage_body<Rule, Whitening, T>{rule, batch, memory.record,
                                                                     totals, advantages});
  run_statistics(executor, double_rewards{totals}, totals.size, group_view{}, memory.record);
  whitening.run(executor, advantages, batch.mask);
}

// Whether a rule finds a reward for this rollout.
template <class Rule, real T>
LAMINA_HOST_DEVICE bool has_reward(reward_arrays<T> const& batch, index_t rollout) {
  if constexpr (requires { requires Rule::reads_function_rewards; }) {
    for (index_t f = 0; f < batch.function_rewards.cols; ++f) {
      if (is_finite(batch.function_rewards(rollout, f))) return true;
    }
    return false;
  } else if constexpr (requires { requires Rule::reads_token_rewards; }) {
    return !is_nan(rollout_reward(batch, rollout));
  } else {
    return is_finite(batch.rewards[rollout]);
  }
}

// The advantage of a rollout for each of its active tokens. A row is a rollout.
template <class Rule, class Whitening, real T>
struct broadcast_body {
  reward_arrays<T> batch;
  advantage_record const* record;
  vector_view<T const> by_rollout;
  vector_view<T> advantages;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    rollout_tokens const own = tokens_of_rollout(batch, advantages.size, row, record);
    bool const readable = own.readable;
    bool const scored = readable && has_reward<Rule>(batch, row);
    T const advantage =
        scored ? by_rollout[row] : static_cast<T>(readable ? absent_token<Whitening>() : 0.0);
    for (index_t t = own.begin + lanes.lane(); t < own.end; t += lanes.count()) {
      advantages[t] = batch.active(t) ? advantage : T(0);
    }
  }
};

}  // namespace detail

LAMINA_NAMESPACE_END
