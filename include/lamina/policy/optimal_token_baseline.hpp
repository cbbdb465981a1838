// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The baseline of least variance for each position of the rollouts of a prompt.
#pragma once

#include <cmath>

#include "lamina/policy/advantage.hpp"
#include "lamina/policy/detail/token_rewards.hpp"

LAMINA_NAMESPACE_BEGIN

/// Which tokens of different rollouts of a group stand at the same position.
enum class token_position : bool {
  among_active,  ///< those with equally many active tokens before them
  in_sequence,   ///< those equally far from the start of their rollouts, masked tokens counted
};

namespace detail {

// What stands at the positions of the rollouts of a batch, and how many of them there are.
struct position_memory {
  vector_view<double> totals;      // [rollouts] rewards
  vector_view<index_t> positions;  // [rollouts]
  vector_view<index_t> lengths;    // [rollouts] active tokens
  // [tokens] from the first token of each rollout on, one position after another:
  vector_view<double> weights;  // W
  vector_view<double> returns;  // g
  vector_view<index_t> tokens;  // which one; -1 if it is masked
};

// A row is a rollout.
template <class Rule, real T>
struct token_position_body {
  static constexpr row_schedule schedule = row_schedule::thread;
  Rule rule;
  reward_arrays<T> batch;
  advantage_record const* record;
  position_memory memory;
  vector_view<T> advantages;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() != 0) return;
    rollout_tokens const own = tokens_of_rollout(batch, advantages.size, row, record);
    bool const known = own.readable && rule.reads_numbers(batch, own.begin, own.end);
    double const total = known ? rollout_reward(batch, row) : no_reward;
    for (index_t t = own.begin; t < own.end; ++t) {
      if (is_nan(total) || !batch.active(t)) advantages[t] = 0;
    }
    memory.totals[row] = total;
    memory.positions[row] = memory.lengths[row] = 0;
    if (!is_nan(total)) place(row, own.begin, own.end);
  }

 private:
  LAMINA_HOST_DEVICE void place(index_t row, index_t begin, index_t end) const {
    index_t place = begin, active = 0;
    double weight = 0;
    for (index_t t = begin; t < end; ++t) {
      bool const own = batch.active(t);
      if (own) weight += rule.token_weight(batch, t);
      if (!own && !rule.counts_masked()) continue;
      memory.weights[place] = own ? weight : 0.0;
      memory.returns[place] = 0;
      memory.tokens[place] = own ? t : -1;
      active += own ? 1 : 0;
      ++place;
    }
    memory.positions[row] = place - begin;
    memory.lengths[row] = active;
    double to_go = 0;
    auto const& at = memory;
    bool const counts_masked = rule.counts_masked();
    for_each_token_backward(batch, row, [&](index_t, bool own, double reward) {
      to_go += reward;
      if (own || counts_masked) --place;
      if (own) at.returns[place] = to_go;
    });
  }
};

// A row is a group.
template <class Rule, real T>
struct position_baseline_body {
  static constexpr row_schedule schedule = row_schedule::block;
  Rule rule;
  reward_arrays<T> batch;
  position_memory memory;
  vector_view<T> advantages;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    group_members const members = batch.groups.rollouts(row);
    comparison const group = comparison_of(members);
    for (index_t p = lanes.lane(); p < group.positions; p += lanes.count()) {
      double weight = rule.epsilon, weighted_return = 0;
      for (index_t k = 0; k < members.size; ++k) {
        if (p >= memory.positions[members[k]]) continue;
        index_t const place = batch.offsets[members[k]] + p;
        weight += memory.weights[place];
        weighted_return += memory.weights[place] * memory.returns[place];
      }
      for (index_t k = 0; k < members.size; ++k) {
        index_t const i = members[k];
        if (p >= memory.positions[i]) continue;
        index_t const place = batch.offsets[i] + p;
        if (memory.tokens[place] < 0) continue;
        bool const compares = p < (i == group.longest ? group.longest_end : group.others_end);
        double const baseline = compares && weight > 0 ? weighted_return / weight : 0.0;
        advantages[memory.tokens[place]] = static_cast<T>(memory.returns[place] - baseline);
      }
    }
  }

 private:
  // Up to which position the rollouts of a group are compared.
  struct comparison {
    index_t positions = 0;    // of the group
    index_t longest = -1;     // the rollout that is longest, in active tokens; -1 if none is
    index_t longest_end = 0;  // for it
    index_t others_end = 0;   // for all others
  };

  LAMINA_HOST_DEVICE comparison comparison_of(group_members members) const {
    comparison group;
    index_t present = 0, longest = -1, most = 0, second = 0;
    for (index_t k = 0; k < members.size; ++k) {
      index_t const i = members[k], length = memory.lengths[i];
      group.positions =
          memory.positions[i] > group.positions ? memory.positions[i] : group.positions;
      present += length > 0 ? 1 : 0;
      if (length > most) {
        second = most;
        most = length;
        longest = i;
      } else if (length > second) {
        second = length;
      }
    }
    if (present < 2) return group;
    group.others_end = group.positions;
    if (!rule.zero_tail || most == second) return group;
    group.longest = longest;
    group.longest_end = second;
    return group;
  }
};

}  // namespace detail

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
    char const* const name = "optimal_token_baseline";
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    detail::check_token_rewards(name, batch, advantages);
    check(arrays, advantages.size);
    detail::check_active_numbers(name, "old_log_probs", batch, batch.old_log_probs);
    detail::check_active_numbers(name, "squared_probabilities", batch, batch.squared_probabilities,
                                 2.0);
    if (!batch.rollout_weights.empty()) {
      detail::check_active_numbers(name, "rollout_weights", batch, batch.rollout_weights, 1e6);
    }
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    char const* const name = "optimal_token_baseline";
    detail::check_epsilon(name, epsilon);
    detail::check_token_sizes(name, batch, advantages);
    if (batch.groups.rollout_count() != batch.offsets.size - 1) {
      throw_shape_error(name, ": the groups hold ", batch.groups.rollout_count(),
                        " rollouts, the offsets ", batch.offsets.size - 1,
                        "; expected equal counts");
    }
    detail::check_size(name, "old_log_probs", batch.old_log_probs.size, advantages);
    detail::check_size(name, "squared_probabilities", batch.squared_probabilities.size, advantages);
    if (batch.rollout_weights.empty()) return;
    detail::check_size(name, "rollout_weights", batch.rollout_weights.size, advantages);
  }
  static constexpr index_t scratch_per_rollout = 3;
  static constexpr index_t scratch_per_token = 3;
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    index_t const rollouts = batch.offsets.size - 1, tokens = advantages.size;
    detail::position_memory const at{memory.take<double>(rollouts),  memory.take<index_t>(rollouts),
                                     memory.take<index_t>(rollouts), memory.take<double>(tokens),
                                     memory.take<double>(tokens),    memory.take<index_t>(tokens)};
    executor.run(rollouts, detail::token_position_body<optimal_token_baseline, T>{
                               *this, batch, memory.record, at, advantages});
    detail::run_statistics(executor, detail::double_rewards{at.totals}, rollouts, batch.groups,
                           memory.record);
    executor.run(
        batch.groups.group_count(),
        detail::position_baseline_body<optimal_token_baseline, T>{*this, batch, at, advantages});
  }

  /// Whether masked tokens have positions of their own.
  LAMINA_HOST_DEVICE bool counts_masked() const noexcept {
    return position == token_position::in_sequence;
  }
  /// The squared norm of d log p / d logits times rho^2. Rounding may leave it below 0 where the
  /// choice was certain.
  template <real T>
  LAMINA_HOST_DEVICE static double token_weight(reward_arrays<T> const& batch, index_t t) {
    double const log_prob = static_cast<double>(batch.old_log_probs[t]);
    double const p = std::exp(log_prob < 0 ? log_prob : 0.0);
    double const norm = 1.0 - 2.0 * p + static_cast<double>(batch.squared_probabilities[t]);
    double const rho =
        batch.rollout_weights.size == 0 ? 1.0 : static_cast<double>(batch.rollout_weights[t]);
    return norm > 0 ? norm * rho * rho : 0.0;
  }
  /// Whether the weights of all active tokens are finite.
  template <real T>
  LAMINA_HOST_DEVICE static bool reads_numbers(reward_arrays<T> const& batch, index_t begin,
                                               index_t end) {
    for (index_t t = begin; t < end; ++t) {
      if (batch.active(t) &&
          !(is_finite(batch.old_log_probs[t]) && is_finite(token_weight(batch, t)))) {
        return false;
      }
    }
    return true;
  }
};

static_assert(advantage_rule<optimal_token_baseline>);

LAMINA_NAMESPACE_END
