// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// GiGPO: advantages of the steps of episodes, relative to the other episodes of the task and to the
// other steps that started from the same state.
#pragma once

#include <vector>

#include "lamina/policy/advantage.hpp"
#include "lamina/policy/detail/token_rewards.hpp"
#include "lamina/policy/whitening.hpp"

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
LAMINA_HOST_DEVICE bool opens_step(reward_arrays<T> const& batch, group_members rows, index_t k) {
  return k == 0 || batch.environment_steps.size == 0 ||
         batch.environment_steps[rows[k]] != batch.environment_steps[rows[k - 1]];
}

// Discounted returns of the steps of one trajectory, written to all rows of each step.
template <real T>
LAMINA_HOST_DEVICE void add_step_returns(reward_arrays<T> const& batch, group_members rows,
                                         double gamma, vector_view<double> returns) {
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
LAMINA_HOST_DEVICE double episode_score(reward_arrays<T> const& batch, group_members rows,
                                        bool divide_by_length) {
  double total = 0;
  index_t steps = 0;
  for (index_t k = 0; k < rows.size; ++k) {
    if (!opens_step(batch, rows, k)) continue;
    total += static_cast<double>(batch.rewards[rows[k]]);
    ++steps;
  }
  // A device cannot refuse a step's reward that is not finite: the episode has none then.
  if (batch.episode_rewards.size > 0 && is_finite(total)) {
    total = static_cast<double>(batch.episode_rewards[rows[0]]);
  }
  return scored_reward(divide_by_length ? total / static_cast<double>(steps) : total);
}

// What GiGPO compares.
struct episode_memory {
  vector_view<double> episodes;  // [trajectories] scores without penalties
  vector_view<double> scores;    // [rollouts] of their episode
  vector_view<double> compared;  // [rollouts] the same, NaN where the episode is compared elsewhere
  vector_view<double> returns;   // [rollouts] of their step
  vector_view<double> joint;     // [rollouts] the advantages
};

// Scores and returns. A row is a trajectory.
template <class Rule, real T>
struct episode_body {
  static constexpr row_schedule schedule = row_schedule::thread;
  Rule rule;
  bool over_rows;
  reward_arrays<T> batch;
  episode_memory memory;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() != 0) return;
    group_members const rows = batch.trajectories.rollouts(row);
    double const score = episode_score(batch, rows, rule.divide_by_length);
    memory.episodes[row] = score;
    add_step_returns(batch, rows, rule.gamma, memory.returns);
    for (index_t k = 0; k < rows.size; ++k) {
      index_t const i = rows[k];
      bool const invalid = batch.invalid_actions.size > 0 && batch.invalid_actions[i] != 0;
      double const penalty = invalid ? rule.invalid_action_penalty : 0.0;
      memory.scores[i] = score - penalty;
      memory.compared[i] = k == 0 || over_rows ? score - penalty : no_reward;
      memory.returns[i] = scored_reward(memory.returns[i] - penalty);
    }
  }
};

// The spread of the episodes, and the groups whose compared scores have none.
struct compared_episodes {
  episode_memory memory;
  LAMINA_HOST_DEVICE double operator()(index_t trajectory) const {
    return memory.episodes[trajectory];
  }
  LAMINA_HOST_DEVICE bool flat(group_members members) const {
    vector_view<double const> const values = memory.compared;
    return spread_of(single_lane{}, members.size, [=](index_t k) { return values[members[k]]; })
        .flat;
  }
};

// Adds weight times the scores of a group, normalised by mean and spread of those that are
// compared. A row is a group.
template <class Scale>
struct relative_scores_body {
  Scale scale;
  lone_rollout lone;
  double weight;
  bool first;  // of what is added up
  group_view groups;
  vector_view<double const> compared, scores;
  vector_view<double> joint;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    group_members const rows = groups.rollouts(row);
    vector_view<double const> const values = compared;
    spread const group = spread_of(lanes, rows.size, [=](index_t k) { return values[rows[k]]; });
    double const mean = keeps_reward(lone, group) ? 0.0 : group.mean;
    double const factor = weight * scale.scale(group.flat ? 1.0 : group.deviation);
    for (index_t k = lanes.lane(); k < rows.size; k += lanes.count()) {
      index_t const i = rows[k];
      joint[i] = (first ? 0.0 : joint[i]) + (scores[i] - mean) * factor;
    }
  }
};

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
  group_view const view = trajectories.view();
  for (index_t t = 0; t < view.group_count(); ++t) {
    detail::add_step_returns(detail::arrays_of(batch), view.rollouts(t), gamma, returns);
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
    check_options();
    detail::check_episodes("group_in_group", batch);
    if (omega != 0) check_anchors(batch.anchors.size, batch.rewards.size);
    prompt_groups const trajectories = batch.groups.split(batch.trajectories);
    prompt_groups const steps = omega != 0 ? batch.groups.split(batch.anchors) : prompt_groups{};
    reward_arrays<T> arrays = detail::arrays_of(batch);
    arrays.trajectories = trajectories.view();
    arrays.anchors = steps.view();
    check(arrays, advantages.size);
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative. Reads trajectories and anchors as groups: a host makes them by
  /// groups.split.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    check_options();
    index_t const rollouts = batch.groups.rollout_count();
    check_count("rewards", batch.rewards.size, rollouts);
    check_count("trajectories", batch.trajectories.rollout_count(), rollouts);
    if (omega != 0) check_anchors(batch.anchors.rollout_count(), rollouts);
    check_count("advantages", advantages, rollouts);
    auto const optional = [&](char const* name, index_t size) {
      if (size != 0) check_count(name, size, rollouts);
    };
    optional("environment_steps", batch.environment_steps.size);
    optional("episode_rewards", batch.episode_rewards.size);
    optional("invalid_actions", batch.invalid_actions.size);
  }
  static constexpr index_t scratch_per_rollout = 5;
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    index_t const rollouts = advantages.size, trajectories = batch.trajectories.group_count();
    auto const doubles = [&] { return memory.take<double>(rollouts); };
    detail::episode_memory const of{memory.take<double>(trajectories), doubles(), doubles(),
                                    doubles(), doubles()};
    executor.run(trajectories, detail::episode_body<group_in_group, T>{
                                   *this, statistics == episode_statistics::over_rows, batch, of});
    detail::run_statistics(executor, detail::compared_episodes{of}, trajectories, batch.groups,
                           memory.record);
    executor.run(batch.groups.group_count(),
                 detail::relative_scores_body<Scale>{scale, lone, 1.0, true, batch.groups,
                                                     of.compared, of.scores, of.joint});
    if (omega != 0) {
      executor.run(
          batch.anchors.group_count(),
          detail::relative_scores_body<Scale>{scale, lone_rollout::zero, omega, false,
                                              batch.anchors, of.returns, of.returns, of.joint});
    }
    executor.run(rollouts, detail::unwhitened_body<T>{of.joint, advantages});
  }

 private:
  static void check_count(char const* name, index_t size, index_t rollouts) {
    if (size == rollouts) return;
    throw_shape_error("group_in_group: ", name, " has ", size, " entries, the batch has ", rollouts,
                      " rollouts");
  }
  static void check_anchors(index_t size, index_t rollouts) {
    if (size == rollouts) return;
    throw_shape_error("group_in_group: anchors has ", size, " entries, the batch has ", rollouts,
                      " rollouts; expected one state a rollout, or omega 0");
  }
  void check_options() const {
    detail::check_discount("group_in_group", "gamma", gamma);
    scale.check();
    if (!is_finite(omega) || omega < 0) {
      throw_config_error("group_in_group: omega is ", omega, ", expected a finite weight >= 0");
    }
    if (!is_finite(invalid_action_penalty) || invalid_action_penalty < 0) {
      throw_config_error("group_in_group: invalid_action_penalty is ", invalid_action_penalty,
                         ", expected a finite value >= 0");
    }
  }
};

static_assert(advantage_rule<group_in_group<by_group_std>>);
static_assert(advantage_rule<group_in_group<no_scale>>);

LAMINA_NAMESPACE_END
