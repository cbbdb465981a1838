// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// GiGPO: advantages of the steps of episodes, relative to the other episodes of the task and to the
// other steps that started from the same state.
#pragma once

#include <vector>

#include "lamina/policy/advantage.hpp"
#include "lamina/policy/detail/token_rewards.hpp"

LAMINA_NAMESPACE_BEGIN

/// Which episode scores of a group its mean and standard deviation are taken of.
enum class episode_statistics : bool {
  over_trajectories,  ///< one score a trajectory, that of its first row: Feng et al. 2025, eq. 3
  over_rows,          ///< one score a row, so that long episodes weigh more: verl-agent until 2025
};

namespace detail {

// Everything that can be wrong about the episodes of a batch, before anything is written.
template <real T>
void check_episodes(char const* function, reward_batch<T> const& batch) {
  index_t const rollouts = batch.groups.rollout_count();
  auto const per_rollout = [&](char const* name, index_t size, bool needed) {
    if (needed && size != rollouts) {
      throw_shape_error(function, ": ", name, " has ", size, " entries, the groups hold ", rollouts,
                        " rollouts; expected one a rollout");
    }
  };
  per_rollout("rewards", batch.rewards.size, true);
  per_rollout("trajectories", batch.trajectories.size, true);
  per_rollout("environment_steps", batch.environment_steps.size, !batch.environment_steps.empty());
  per_rollout("episode_rewards", batch.episode_rewards.size, !batch.episode_rewards.empty());
  per_rollout("invalid_actions", batch.invalid_actions.size, !batch.invalid_actions.empty());
  check_numbers(function, "rewards", batch.rewards);
  check_numbers(function, "episode_rewards", batch.episode_rewards);
}

// Whether row k of a trajectory is the first of its environment step.
template <real T>
bool opens_step(reward_batch<T> const& batch, vector_view<index_t const> rows, index_t k) {
  return k == 0 || batch.environment_steps.empty() ||
         batch.environment_steps[rows[k]] != batch.environment_steps[rows[k - 1]];
}

// Discounted returns of the steps of one trajectory, written to all rows of each step.
template <real T>
void add_step_returns(reward_batch<T> const& batch, vector_view<index_t const> rows, double gamma,
                      vector_view<double> returns) {
  double next = 0;
  index_t end = rows.size;
  for (index_t k = rows.size - 1; k >= 0; --k) {
    if (!opens_step(batch, rows, k)) continue;
    next = static_cast<double>(batch.rewards[rows[k]]) + gamma * next;
    for (index_t j = k; j < end; ++j) returns[rows[j]] = next;
    end = k;
  }
}

// Total reward of one trajectory, or its mean over environment steps.
template <real T>
double episode_score(reward_batch<T> const& batch, vector_view<index_t const> rows,
                     bool divide_by_length) {
  double total = 0;
  index_t steps = 0;
  for (index_t k = 0; k < rows.size; ++k) {
    if (!opens_step(batch, rows, k)) continue;
    total += static_cast<double>(batch.rewards[rows[k]]);
    ++steps;
  }
  if (!batch.episode_rewards.empty()) total = static_cast<double>(batch.episode_rewards[rows[0]]);
  return divide_by_length ? total / static_cast<double>(steps) : total;
}

}  // namespace detail

/// Discounted returns of steps: Q_k = r_k + gamma Q_{k+1} along each trajectory (Feng et al. 2025,
/// arXiv:2505.10978, eq. 5).
///
/// Reads rewards, groups, trajectories (rows of a trajectory in temporal order, wherever they
/// stand) and environment_steps: neighbouring rows of one environment step have one return, from
/// the reward of the first of them.
/// returns  [rollouts]  written
/// Throws shape_error or config_error, naming what does not fit, before anything is written.
template <real T>
void step_returns(reward_batch<T> const& batch, double gamma, vector_view<double> returns) {
  detail::check_episodes("step_returns", batch);
  detail::check_discount("step_returns", "gamma", gamma);
  if (returns.size != batch.rewards.size) {
    throw_shape_error("step_returns: returns has ", returns.size, " entries, the batch has ",
                      batch.rewards.size, " rollouts");
  }
  prompt_groups const trajectories = batch.groups.split(batch.trajectories);
  for (index_t t = 0; t < trajectories.group_count(); ++t) {
    detail::add_step_returns(batch, trajectories.rollouts(t), gamma, returns);
  }
}

/// Group-in-group advantages (GiGPO; Feng et al. 2025, arXiv:2505.10978): a rollout is one step of
/// an episode, a group holds the episodes of one task from one initial state.
///
///   S = total reward of the episode,    Q_k = r_k + gamma Q_{k+1}
///   A = (S - mean_G) scale(s_G) + omega (Q - mean_a) scale(s_a)
///
/// with mean and sample standard deviation of S over the group, and of Q over the rows of the group
/// that started from the same state (eq. 3, 7 and 8). Scale = by_group_std is the authors'
/// mean_std_norm, no_scale their mean_norm; their code has 1e-6 as epsilon of both levels. Rows are
/// taken once: rows that were copied to fill up a batch would count as further steps.
///
/// Degenerate groups. A step whose state occurs once, and equal scores, get exactly 0. Where the
/// scores of a group are all equal, its std is 1 instead of 0: a row that differs from them by its
/// penalty alone has A = -penalty / (1 + epsilon), not -penalty / epsilon.
template <group_scale Scale = by_group_std>
struct group_in_group {
  static_assert(
      !Scale::of_batch,
      "lamina: group_in_group divides by the spread of a group of episodes and of a group "
      "of steps; use by_group_std or no_scale, not a scale of the whole batch");
  static constexpr bool per_token = false;
  Scale scale{};
  /// Discount of step returns: 0.95 in the authors' ALFWorld script, 1 in verl-agent's defaults.
  double gamma = 0.95;
  /// Weight of the step advantage; with 0 the anchors are not read. 1 in the paper and verl-agent.
  double omega = 1;
  episode_statistics statistics = episode_statistics::over_trajectories;
  /// The episode advantage where a group has one score only: by default verl-agent's, because the
  /// results published for GiGPO were run with it. Then a group of one trains on its score itself.
  lone_rollout lone = lone_rollout::raw_reward;
  /// Taken from both scores of a row whose action was invalid, after the step returns: it does not
  /// reach earlier steps. 0.1 in verl-agent; 0 switches it off.
  double invalid_action_penalty = 0.1;
  /// Episode scores are means over environment steps instead of totals. Off in verl-agent.
  bool divide_by_length = false;

  /// Reads rewards [rollouts] (of the steps, finite), groups, trajectories and anchors, and, where
  /// given, environment_steps, episode_rewards and invalid_actions. Trajectory and anchor numbers
  /// need be unique only within a group: groups never mix.
  /// advantages  [rollouts]  written; may alias rewards
  /// Statistics: reward_mean and reward_std are those of the episode scores, one a trajectory,
  /// without penalties; a group has zero spread if its scores with penalties are all equal (its
  /// steps may still differ).
  /// Throws shape_error or config_error, naming what does not fit, before anything is written.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    check(batch, advantages);
    std::size_t const rollouts = static_cast<std::size_t>(batch.rewards.size);
    std::vector<double> scores(rollouts), returns(rollouts), joint(rollouts), episodes;
    std::vector<std::uint8_t> opens_trajectory(rollouts);
    prompt_groups const trajectories = batch.groups.split(batch.trajectories);
    for (index_t t = 0; t < trajectories.group_count(); ++t) {
      vector_view<index_t const> const rows = trajectories.rollouts(t);
      episodes.push_back(detail::episode_score(batch, rows, divide_by_length));
      for (index_t i : rows) scores[at(i)] = episodes.back();
      opens_trajectory[at(rows[0])] = 1;
      detail::add_step_returns(batch, rows, gamma, returns);
    }
    index_t const count = trajectories.group_count();
    advantage_statistics result = detail::statistics_of(
        detail::spread_of(count, [&](index_t t) { return episodes[at(t)]; }), count);
    result.group_count = batch.groups.group_count();
    for (index_t i = 0; i < batch.invalid_actions.size; ++i) {
      double const penalty = batch.invalid_actions[i] != 0 ? invalid_action_penalty : 0.0;
      scores[at(i)] -= penalty;
      returns[at(i)] -= penalty;
    }

    std::vector<double> compared;
    for (index_t g = 0; g < batch.groups.group_count(); ++g) {
      vector_view<index_t const> const rows = batch.groups.rollouts(g);
      compared.clear();
      for (index_t i : rows) {
        bool const counts = statistics == episode_statistics::over_rows || opens_trajectory[at(i)];
        if (counts) compared.push_back(scores[at(i)]);
      }
      result.zero_spread_groups += add_relative(compared, lone, 1.0, rows, scores, joint) ? 1 : 0;
    }
    prompt_groups const steps = omega != 0 ? batch.groups.split(batch.anchors) : prompt_groups{};
    for (index_t s = 0; s < steps.group_count(); ++s) {
      vector_view<index_t const> const rows = steps.rollouts(s);
      compared.clear();
      for (index_t i : rows) compared.push_back(returns[at(i)]);
      add_relative(compared, lone_rollout::zero, omega, rows, returns, joint);
    }
    for (index_t i = 0; i < advantages.size; ++i) advantages[i] = static_cast<T>(joint[at(i)]);
    return result;
  }

 private:
  static constexpr std::size_t at(index_t i) noexcept { return static_cast<std::size_t>(i); }

  // Adds weight times the scores of `rows`, normalised by mean and spread of `compared`. Returns
  // whether those are all equal.
  bool add_relative(std::vector<double> const& compared, lone_rollout alone, double weight,
                    vector_view<index_t const> rows, std::vector<double> const& scores,
                    std::vector<double>& joint) const {
    detail::spread const spread =
        detail::spread_of(static_cast<index_t>(compared.size()),
                          [&](index_t k) { return compared[static_cast<std::size_t>(k)]; });
    double const mean = detail::keeps_reward(alone, spread) ? 0.0 : spread.mean;
    double const factor = weight * scale.scale(spread.flat ? 1.0 : spread.deviation);
    for (index_t i : rows) joint[at(i)] += (scores[at(i)] - mean) * factor;
    return spread.flat;
  }

  template <real T>
  void check(reward_batch<T> const& batch, vector_view<T> advantages) const {
    detail::check_episodes("group_in_group", batch);
    detail::check_discount("group_in_group", "gamma", gamma);
    scale.check();
    if (!is_finite(omega) || omega < 0) {
      throw_config_error("group_in_group: omega is ", omega, ", expected a finite weight >= 0");
    }
    if (!is_finite(invalid_action_penalty) || invalid_action_penalty < 0) {
      throw_config_error("group_in_group: invalid_action_penalty is ", invalid_action_penalty,
                         ", expected a finite value >= 0");
    }
    if (omega != 0 && batch.anchors.size != batch.rewards.size) {
      throw_shape_error("group_in_group: anchors has ", batch.anchors.size,
                        " entries, the batch has ", batch.rewards.size,
                        " rollouts; expected one state a rollout, or omega 0");
    }
    if (advantages.size != batch.rewards.size) {
      throw_shape_error("group_in_group: advantages has ", advantages.size,
                        " entries, the batch has ", batch.rewards.size, " rollouts");
    }
  }
};

static_assert(advantage_rule<group_in_group<by_group_std>>);
static_assert(advantage_rule<group_in_group<no_scale>>);

LAMINA_NAMESPACE_END
