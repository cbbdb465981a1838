// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Advantages per token: rewards still to come, greedy baselines, whitened broadcasts, and
// generalised advantage estimates.
#pragma once

#include <vector>

#include "lamina/policy/advantage.hpp"
#include "lamina/policy/detail/token_rewards.hpp"
#include "lamina/policy/whitening.hpp"

LAMINA_NAMESPACE_BEGIN

/// What a masked token inside a rollout, such as a tool's answer, does to the rewards that come
/// after it.
enum class masked_tokens : bool {
  skip,  ///< nothing: rewards count for the tokens before it as if it were not there
  cut,   ///< they do not reach the tokens before it (verl until early 2026)
};

/// The defaults of rules that add rewards up over time.
struct return_defaults {
  static constexpr double gamma = 1.0;
  static constexpr double lambda = 1.0;
  static constexpr masked_tokens masked = masked_tokens::skip;
};

/// Discounted rewards still to come, whitened over the active tokens of the batch: REINFORCE++.
///
///   g_t = r_t + gamma g_{t+1},    a = whiten(g)
///
/// where t + 1 is the next active token. Whitening = no_whitening gives the rewards to go as they
/// are. Source: REINFORCE++ (arXiv:2501.03262).
template <token_normalizer Whitening = token_whitening, class Defaults = return_defaults>
struct reward_to_go {
  static constexpr bool per_token = true;
  double gamma = Defaults::gamma;
  masked_tokens masked = Defaults::masked;
  Whitening whitening{};

  /// Reads offsets, mask and token_rewards; without token_rewards, rewards, each given to the last
  /// active token of its rollout.
  /// advantages  [tokens]  written, exactly 0 where masked; may alias token_rewards
  /// Throws shape_error for sizes that do not fit, config_error for a reward at an active token
  /// that is not finite, or an option that is not allowed.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    whitening.check();
    detail::check_discount("reward_to_go", "gamma", gamma);
    detail::check_token_rewards("reward_to_go", batch, advantages);
    advantage_statistics const statistics = detail::token_statistics(batch);
    for (index_t i = 0; i + 1 < batch.offsets.size; ++i) {
      double to_go = 0;
      detail::for_each_token_backward(batch, i, [&](index_t t, bool active, double reward) {
        if (active) {
          to_go = reward + gamma * to_go;
        } else if (masked == masked_tokens::cut) {
          to_go = 0;
        }
        advantages[t] = active ? static_cast<T>(to_go) : T(0);
      });
    }
    whitening.apply(advantages, batch.mask);
    return statistics;
  }
};

/// The rewards still to come, against the reward of the greedy completion of the same prompt:
/// ReMax.
///
///   a_t = sum_{u >= t} r_u - b
///
/// Source: ReMax (arXiv:2310.10505).
struct greedy_baseline {
  static constexpr bool per_token = true;

  /// Reads greedy_rewards [rollouts] and what reward_to_go reads.
  /// advantages  [tokens]  written, exactly 0 where masked; may alias token_rewards
  /// Throws as reward_to_go does.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    detail::check_token_rewards("greedy_baseline", batch, advantages);
    if (batch.greedy_rewards.size != batch.offsets.size - 1) {
      throw_shape_error("greedy_baseline: greedy_rewards has ", batch.greedy_rewards.size,
                        " entries, the offsets hold ", batch.offsets.size - 1, " rollouts");
    }
    detail::check_numbers("greedy_baseline", "greedy_rewards", batch.greedy_rewards);
    advantage_statistics const statistics = detail::token_statistics(batch);
    for (index_t i = 0; i + 1 < batch.offsets.size; ++i) {
      double const baseline = static_cast<double>(batch.greedy_rewards[i]);
      double to_go = 0;
      detail::for_each_token_backward(batch, i, [&](index_t t, bool active, double reward) {
        to_go += reward;
        advantages[t] = active ? static_cast<T>(to_go - baseline) : T(0);
      });
    }
    return statistics;
  }
};

/// Generalised advantage estimates from a critic's values, whitened over the active tokens: PPO.
///
///   delta_t = r_t + gamma v_{t+1} - v_t,    a_t = delta_t + gamma lambda a_{t+1}
///
/// where t + 1 is the next active token: observations are skipped, and after the last token value
/// and advantage are 0. The critic's targets are the returns a_t + v_t, before whitening.
/// Source: Schulman et al. 2016 (arXiv:1506.02438), eq. 16.
template <token_normalizer Whitening = token_whitening, class Defaults = return_defaults>
struct gae {
  static constexpr bool per_token = true;
  double gamma = Defaults::gamma;
  double lambda = Defaults::lambda;
  Whitening whitening{};

  /// Reads values [tokens] and what reward_to_go reads.
  /// advantages  [tokens]  written, exactly 0 where masked; may alias token_rewards or values
  /// Throws as reward_to_go does.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    return compute(batch, advantages, vector_view<T>{});
  }

  /// The same with the critic's targets.
  /// returns     [tokens]  written, exactly 0 where masked; may alias what advantages does not
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages,
                               vector_view<T> returns) const {
    whitening.check();
    detail::check_discount("gae", "gamma", gamma);
    detail::check_discount("gae", "lambda", lambda);
    detail::check_token_rewards("gae", batch, advantages);
    detail::check_active_numbers("gae", "values", batch, batch.values);
    if (!returns.empty()) detail::check_token_count("gae", "returns", batch, returns.size);
    advantage_statistics const statistics = detail::token_statistics(batch);
    for (index_t i = 0; i + 1 < batch.offsets.size; ++i) {
      double next_value = 0, advantage = 0;
      detail::for_each_token_backward(batch, i, [&](index_t t, bool active, double reward) {
        double const value = active ? static_cast<double>(batch.values[t]) : 0.0;
        if (active) {
          double const delta = reward + gamma * next_value - value;
          advantage = delta + gamma * lambda * advantage;
          next_value = value;
        }
        advantages[t] = active ? static_cast<T>(advantage) : T(0);
        if (!returns.empty()) returns[t] = active ? static_cast<T>(advantage + value) : T(0);
      });
    }
    whitening.apply(advantages, batch.mask);
    return statistics;
  }
};

namespace detail {

// Whether a rule per rollout finds a reward for this one.
template <class Rule, real T>
bool has_reward(reward_batch<T> const& batch, index_t rollout) {
  if constexpr (requires { requires Rule::reads_function_rewards; }) {
    for (T reward : batch.function_rewards.row(rollout)) {
      if (!is_nan(reward)) return true;
    }
    return false;
  } else {
    return !is_nan(batch.rewards[rollout]);
  }
}

}  // namespace detail

/// The advantages of a rule per rollout, given to each of its active tokens and whitened over the
/// active tokens of the batch. token_whitened<group_relative<no_scale>> is REINFORCE++-baseline.
///
/// Tokens of rollouts without a reward stay out of the statistics and get 0.
/// Source: REINFORCE++ (arXiv:2501.03262).
template <advantage_rule Rule, token_normalizer Whitening = token_whitening>
requires(!Rule::per_token) struct token_whitened {
  static constexpr bool per_token = true;
  Rule rule{};
  Whitening whitening{};

  /// Reads offsets, mask and what the rule reads.
  /// advantages  [tokens]  written, exactly 0 where masked
  /// Throws as the rule does, and shape_error for offsets, mask or advantages that do not fit.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    whitening.check();
    detail::check_tokens("token_whitened", batch);
    detail::check_token_count("token_whitened", "advantages", batch, advantages.size);
    index_t const rollouts = batch.offsets.size - 1;
    std::vector<T> by_rollout(static_cast<std::size_t>(rollouts));
    advantage_statistics const statistics = rule.compute(batch, vector_view<T>(by_rollout));
    vector_view<std::uint8_t const> counted = batch.mask;
    std::vector<std::uint8_t> scored_tokens;
    if (statistics.missing_rewards > 0) {
      for (index_t t = 0; t < advantages.size; ++t) scored_tokens.push_back(batch.active(t));
      for (index_t i = 0; i < rollouts; ++i) {
        if (detail::has_reward<Rule>(batch, i)) continue;
        for (index_t t = batch.offsets[i]; t < batch.offsets[i + 1]; ++t) {
          scored_tokens[static_cast<std::size_t>(t)] = 0;
        }
      }
      counted = scored_tokens;
    }
    for (index_t i = 0; i < rollouts; ++i) {
      for (index_t t = batch.offsets[i]; t < batch.offsets[i + 1]; ++t) {
        advantages[t] = by_rollout[static_cast<std::size_t>(i)];
      }
    }
    whitening.apply(advantages, counted);
    return statistics;
  }
};

static_assert(advantage_rule<reward_to_go<>> && advantage_rule<reward_to_go<no_whitening>>);
static_assert(advantage_rule<greedy_baseline>);
static_assert(advantage_rule<gae<>> && advantage_rule<gae<no_whitening>>);
static_assert(advantage_rule<token_whitened<group_relative<no_scale>>>);

LAMINA_NAMESPACE_END
