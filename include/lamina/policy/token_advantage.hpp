// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Advantages per token: rewards still to come, greedy baselines, whitened broadcasts, and
// generalised advantage estimates.
#pragma once

#include <vector>

#include "lamina/policy/advantage.hpp"
#include "lamina/policy/detail/token_advantage_pass.hpp"
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
    detail::check_token_rewards("reward_to_go", batch, advantages);
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    whitening.check();
    detail::check_discount("reward_to_go", "gamma", gamma);
    detail::check_token_sizes("reward_to_go", batch, advantages);
  }
  static constexpr index_t scratch_per_rollout = 1;
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    detail::run_token_rule(executor, detail::returns_to_go{gamma, masked == masked_tokens::cut, 0},
                           whitening, batch, advantages, memory);
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
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    detail::check_numbers("greedy_baseline", "greedy_rewards", batch.greedy_rewards);
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    detail::check_token_sizes("greedy_baseline", batch, advantages);
    if (batch.greedy_rewards.size != batch.offsets.size - 1) {
      throw_shape_error("greedy_baseline: greedy_rewards has ", batch.greedy_rewards.size,
                        " entries, the offsets hold ", batch.offsets.size - 1, " rollouts");
    }
  }
  static constexpr index_t scratch_per_rollout = 1;
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    detail::run_token_rule(executor, detail::beaten_returns{0, 0}, no_whitening{}, batch,
                           advantages, memory);
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
    detail::check_token_rewards("gae", batch, advantages);
    detail::check_active_numbers("gae", "values", batch, batch.values);
    if (!returns.empty()) detail::check_token_count("gae", "returns", batch, returns.size);
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    return detail::run_on_host(*this, arrays, advantages, returns);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages, index_t returns = 0) const {
    whitening.check();
    detail::check_discount("gae", "gamma", gamma);
    detail::check_discount("gae", "lambda", lambda);
    detail::check_token_sizes("gae", batch, advantages);
    if (batch.values.size != advantages || (returns != 0 && returns != advantages)) {
      throw_shape_error("gae: values has ", batch.values.size, " entries, advantages ", advantages,
                        ", returns ", returns, "; expected one a token (returns may be empty)");
    }
  }
  static constexpr index_t scratch_per_rollout = 1;
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory, vector_view<T> returns = {}) const {
    detail::run_token_rule(executor,
                           detail::generalised_estimates<T>{gamma, lambda, batch.values, returns},
                           whitening, batch, advantages, memory);
  }
};

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
    detail::advantage_record const unbroken;
    std::vector<T> by_rollout(static_cast<std::size_t>(batch.offsets.size - 1));
    advantage_statistics const statistics = rule.compute(batch, vector_view<T>(by_rollout));
    finish(host_rows<>{}, detail::arrays_of(batch), &unbroken, vector_view<T const>(by_rollout),
           advantages);
    return statistics;
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    whitening.check();
    if (batch.offsets.empty() || (!batch.mask.empty() && batch.mask.size != advantages)) {
      throw_shape_error("token_whitened: offsets has ", batch.offsets.size, " entries, mask ",
                        batch.mask.size, ", advantages ", advantages,
                        "; expected [rollouts + 1] offsets, and a mask as long as advantages or "
                        "none");
    }
    rule.check(batch, batch.offsets.size - 1);
  }
  static constexpr index_t scratch_per_rollout = 1 + detail::scratch_of<Rule>;
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    auto const by_rollout = memory.take<T>(batch.offsets.size - 1);
    rule.run(executor, batch, by_rollout, memory);
    finish(executor, batch, memory.record, vector_view<T const>(by_rollout), advantages);
  }

 private:
  template <class Executor, real T>
  void finish(Executor const& executor, reward_arrays<T> const& batch,
              detail::advantage_record const* record, vector_view<T const> by_rollout,
              vector_view<T> advantages) const {
    executor.run(by_rollout.size,
                 detail::broadcast_body<Rule, Whitening, T>{batch, record, by_rollout, advantages});
    whitening.run(executor, advantages, batch.mask);
  }
};

static_assert(advantage_rule<reward_to_go<>> && advantage_rule<reward_to_go<no_whitening>>);
static_assert(advantage_rule<greedy_baseline>);
static_assert(advantage_rule<gae<>> && advantage_rule<gae<no_whitening>>);
static_assert(advantage_rule<token_whitened<group_relative<no_scale>>>);

LAMINA_NAMESPACE_END
