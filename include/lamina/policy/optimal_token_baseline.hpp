// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The baseline of least variance for each position of the rollouts of a prompt.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "lamina/policy/advantage.hpp"
#include "lamina/policy/detail/token_rewards.hpp"

LAMINA_NAMESPACE_BEGIN

/// Which tokens of different rollouts of a group stand at the same position.
enum class token_position : bool {
  among_active,  ///< those with equally many active tokens before them
  in_sequence,   ///< those equally far from the start of their rollouts, masked tokens counted
};

/// Rewards still to come against a baseline for each position, weighted by how much the gradient
/// has varied up to there.
///
///   w_t = rho_t^2 (1 - 2 p_t + sum_v p_v^2),    W_t = sum_{u <= t} w_u,    g_t = sum_{u >= t} r_u
///   a_t = g_t - sum_G g W / (sum_G W + epsilon)    sums over the tokens of the group at t's
///   position
///
/// p_t is the probability of the token that was chosen, rho the rollout correction's weight; w_t is
/// the squared norm of d log p_t / d logits. In a group with one rollout that has active tokens the
/// baseline is 0.
/// Source: verl (optimal_token_baseline with in_sequence, tir_optimal_token_baseline with
/// among_active; the two differ only where masked tokens stand between active ones).
struct optimal_token_baseline {
  static constexpr bool per_token = true;
  double epsilon = 1e-8;
  token_position position = token_position::among_active;
  /// Whether the baseline of a group's one longest rollout, in active tokens, is 0 from the length
  /// of the second longest on, where it has nothing but itself to compare with.
  bool zero_tail = true;

  /// Reads groups, old_log_probs, squared_probabilities, rollout_weights (empty = 1), and what
  /// reward_to_go reads.
  /// advantages  [tokens]  written, exactly 0 where masked; may alias token_rewards
  /// Throws as reward_to_go does, and config_error for a number at an active token that is not a
  /// log-prob, a sum of squared probabilities or a weight.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    check(batch, advantages);
    std::vector<double> returns(static_cast<std::size_t>(advantages.size));  // g
    for (index_t i = 0; i + 1 < batch.offsets.size; ++i) {
      double to_go = 0;
      detail::for_each_token_backward(batch, i, [&](index_t t, bool, double reward) {
        to_go += reward;
        returns[static_cast<std::size_t>(t)] = to_go;
      });
    }
    std::vector<double> weight_sums, weighted_returns;  // by position: sum W, sum g W
    auto const total = [&](index_t i) { return detail::rollout_reward(batch, i); };
    return detail::for_each_group(
        batch.groups, total, [&](auto members, auto const& /*group*/, auto const& /*all*/) {
          weight_sums.clear();
          weighted_returns.clear();
          for (index_t i : members) {
            double weight = 0;
            for_each_active(batch, i, [&](index_t t, std::size_t p) {
              weight += token_weight(batch, t);
              if (p >= weight_sums.size()) {
                weight_sums.resize(p + 1);
                weighted_returns.resize(p + 1);
              }
              weight_sums[p] += weight;
              weighted_returns[p] += weight * returns[static_cast<std::size_t>(t)];
            });
          }
          comparison const group = comparison_of(batch, members);
          for (index_t i : members) {
            index_t const end = group.end(i);
            for (index_t t = batch.offsets[i]; t < batch.offsets[i + 1]; ++t) {
              if (!batch.active(t)) advantages[t] = T(0);
            }
            for_each_active(batch, i, [&](index_t t, std::size_t p) {
              double const weight = weight_sums[p] + epsilon;
              bool const compares = static_cast<index_t>(p) < end && weight > 0;
              double const baseline = compares ? weighted_returns[p] / weight : 0.0;
              advantages[t] = static_cast<T>(returns[static_cast<std::size_t>(t)] - baseline);
            });
          }
        });
  }

 private:
  // Up to which position the rollouts of a group are compared.
  struct comparison {
    index_t longest = -1;     // the one that is longest, in active tokens; -1 if none is
    index_t longest_end = 0;  // for it
    index_t others_end = 0;   // for all others

    index_t end(index_t rollout) const noexcept {
      return rollout == longest ? longest_end : others_end;
    }
  };

  template <real T>
  comparison comparison_of(reward_batch<T> const& batch, vector_view<index_t const> members) const {
    index_t present = 0, longest = -1, most = 0, second = 0;
    for (index_t i : members) {
      index_t const length = batch.active_tokens(i);
      present += length > 0 ? 1 : 0;
      if (length > most) {
        second = most;
        most = length;
        longest = i;
      } else if (length > second) {
        second = length;
      }
    }
    if (present < 2) return {};
    index_t const unlimited = std::numeric_limits<index_t>::max();
    if (!zero_tail || most == second) return {.others_end = unlimited};
    return {.longest = longest, .longest_end = second, .others_end = unlimited};
  }

  // Calls f(token, position) for the active tokens of a rollout.
  template <real T, class F>
  void for_each_active(reward_batch<T> const& batch, index_t rollout, F const& f) const {
    index_t position_in_rollout = 0;
    for (index_t t = batch.offsets[rollout]; t < batch.offsets[rollout + 1]; ++t) {
      bool const active = batch.active(t);
      if (active) f(t, static_cast<std::size_t>(position_in_rollout));
      position_in_rollout += active || position == token_position::in_sequence ? 1 : 0;
    }
  }

  // The squared norm of d log p / d logits times rho^2. Rounding may leave it below 0 where the
  // choice was certain.
  template <real T>
  static double token_weight(reward_batch<T> const& batch, index_t t) {
    double const log_prob = static_cast<double>(batch.old_log_probs[t]);
    double const p = std::exp(log_prob < 0 ? log_prob : 0.0);
    double const norm = 1.0 - 2.0 * p + static_cast<double>(batch.squared_probabilities[t]);
    double const rho =
        batch.rollout_weights.empty() ? 1.0 : static_cast<double>(batch.rollout_weights[t]);
    return norm > 0 ? norm * rho * rho : 0.0;
  }

  template <real T>
  void check(reward_batch<T> const& batch, vector_view<T> advantages) const {
    char const* const name = "optimal_token_baseline";
    detail::check_epsilon(name, epsilon);
    detail::check_token_rewards(name, batch, advantages);
    if (batch.groups.rollout_count() != batch.offsets.size - 1) {
      throw_shape_error(name, ": the groups hold ", batch.groups.rollout_count(),
                        " rollouts, the offsets ", batch.offsets.size - 1,
                        "; expected equal counts");
    }
    detail::check_active_numbers(name, "old_log_probs", batch, batch.old_log_probs);
    detail::check_active_numbers(name, "squared_probabilities", batch, batch.squared_probabilities,
                                 2.0);
    if (!batch.rollout_weights.empty()) {
      detail::check_active_numbers(name, "rollout_weights", batch, batch.rollout_weights, 1e6);
    }
  }
};

static_assert(advantage_rule<optimal_token_baseline>);

LAMINA_NAMESPACE_END
