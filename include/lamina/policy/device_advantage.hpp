// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Advantages on a device: rewards that lie in its memory become advantages there, by the row bodies
// that a host runs, too.
#pragma once

#include <utility>

#include "lamina/backend/device_vector.hpp"
#include "lamina/policy/advantage.hpp"
#include "lamina/policy/detail/device_arguments.hpp"

LAMINA_NAMESPACE_BEGIN

/// A rule whose compute is made of row bodies, as that of all rules of the library is.
template <class R>
concept device_advantage_rule = advantage_rule<R> &&
    requires(R const& rule, reward_arrays<double> const& batch, vector_view<double> advantages,
             detail::advantage_memory memory) {
  rule.check(batch, index_t{});
  rule.run(host_rows<>{}, batch, advantages, memory);
};

/// Prompt groups in the memory of a device; also the groups of steps that group_in_group compares,
/// groups.split(anchors) and groups.split(trajectories). Movable.
template <device_backend Backend>
class device_prompt_groups {
 public:
  /// A copy of `groups`, which stays here until the stream has come to it.
  device_prompt_groups(Backend const& backend, prompt_groups groups)
      : groups_(std::move(groups)),
        order_(backend, detail::group_arrays::order(groups_)),
        offsets_(backend, detail::group_arrays::offsets(groups_)) {}

  /// For reward_arrays; good as long as this stays.
  group_view view() const noexcept {
    return detail::group_arrays::of_copy(groups_.view(), offsets_.view().data, order_.view().data);
  }

 private:
  prompt_groups groups_;
  device_vector<Backend, index_t> order_, offsets_;
};

/// Where advantages on a device leave the statistics of their rewards, and the memory they work in.
/// One report serves one call after another on the same stream, and all of them in a captured
/// graph. Movable.
template <device_backend Backend>
class advantage_report {
 public:
  /// For batches of at most `most_rollouts` rollouts of at most `most_tokens` tokens in all, which
  /// optimal_token_baseline alone asks for. Rules that compare rewards within a group and do
  /// nothing else (group_relative, leave_one_out<no_whitening>, length_weighted_baseline,
  /// second_best, compensated_group_mean) need no memory but the report itself.
  explicit advantage_report(Backend const& backend, index_t most_rollouts = 0,
                            index_t most_tokens = 0)
      : record_(backend, 1),
        scratch_(backend, 8 * (6 * most_rollouts + 3 * most_tokens)),
        most_rollouts_(most_rollouts),
        most_tokens_(most_tokens) {}

  /// The last statistics, in the memory of the device.
  advantage_statistics const* on_device() const noexcept {
    return &record_.view().data->statistics;
  }
  /// Waits for the device and returns the statistics of the last rewards.
  ///
  /// Throws what only the device could see, long after the call: shape_error if offsets did not
  /// start at 0, ascend and end at the tokens of the batch, config_error if rewards were missing,
  /// or infinite, under a rule that refuses that. All advantages that this touches are 0 then.
  advantage_statistics read(Backend const& backend) const {
    detail::advantage_record const record = record_.to_host(backend)[0];
    if (reads_offsets_ && record.broken_offsets > 0) {
      throw_shape_error("advantage_report::read: ", record.broken_offsets,
                        " entries of batch.offsets are no bounds; expected offsets that start at "
                        "0, ascend and end at the tokens of the batch");
    }
    if (missing_ == missing_reward::refuse && record.statistics.missing_rewards > 0) {
      throw_config_error("advantage_report::read: ", record.statistics.missing_rewards,
                         " rewards were not finite, expected finite rewards, or a rule with "
                         "missing_reward::exclude");
    }
    return record.statistics;
  }

  /// The memory, for advantages by a rule. Throws shape_error if it is not enough.
  template <device_advantage_rule Rule>
  detail::advantage_memory begin(Rule const& rule, index_t rollouts, index_t advantages,
                                 bool reads_offsets) {
    index_t const wanted = detail::scratch_size<Rule>(rollouts, advantages);
    if (8 * wanted > scratch_.size()) {
      throw_shape_error("compute_advantages: the batch has ", rollouts, " rollouts and ",
                        advantages, " advantages, the report is for ", most_rollouts_,
                        " rollouts of ", most_tokens_, " tokens at most");
    }
    missing_ = missing_of(rule);
    reads_offsets_ = reads_offsets;
    return {record_.view().data, scratch_.view()};
  }

 private:
  template <class Rule>
  static missing_reward missing_of(Rule const& rule) {
    if constexpr (requires { rule.missing; }) {
      return rule.missing;
    } else if constexpr (requires { rule.rule; }) {
      return missing_of(rule.rule);
    } else {
      return missing_reward::refuse;
    }
  }

  device_vector<Backend, detail::advantage_record> record_;
  device_vector<Backend, unsigned char> scratch_;
  index_t most_rollouts_, most_tokens_;
  missing_reward missing_ = missing_reward::refuse;
  bool reads_offsets_ = false;
};

namespace detail {

template <device_backend Backend, class Rule, real T>
void check_arrays(device_arguments<Backend>& arguments, Rule const& rule,
                  reward_arrays<T> const& batch) {
  arguments.reads("batch.rewards", batch.rewards);
  arguments.reads("batch.offsets", batch.offsets);
  arguments.reads("batch.mask", batch.mask);
  arguments.reads("batch.token_rewards", batch.token_rewards);
  arguments.reads("batch.values", batch.values);
  arguments.reads("batch.old_log_probs", batch.old_log_probs);
  arguments.reads("batch.squared_probabilities", batch.squared_probabilities);
  arguments.reads("batch.rollout_weights", batch.rollout_weights);
  arguments.reads("batch.greedy_rewards", batch.greedy_rewards);
  arguments.reads("batch.function_rewards", batch.function_rewards);
  arguments.reads("batch.environment_steps", batch.environment_steps);
  arguments.reads("batch.episode_rewards", batch.episode_rewards);
  arguments.reads("batch.invalid_actions", batch.invalid_actions);
  auto const groups = [&](char const* name, group_view view) {
    arguments.reads(name, group_arrays::offsets(view));
    arguments.reads(name, group_arrays::order(view));
  };
  groups("batch.groups", batch.groups);
  groups("batch.trajectories", batch.trajectories);
  groups("batch.anchors", batch.anchors);
  check_weights(arguments, rule);
}
template <device_backend Backend, class Rule>
void check_weights(device_arguments<Backend>& arguments, Rule const& rule) {
  if constexpr (requires { rule.weights; }) arguments.reads("weights", rule.weights);
  if constexpr (requires { rule.rule; }) check_weights(arguments, rule.rule);
}

// The memory that is read and may be written over, as rule.compute says: what rewards come from.
template <real T>
void const* overwritten(reward_arrays<T> const& batch, T const* advantages) {
  T const* const read[] = {batch.rewards.data, batch.token_rewards.data, batch.values.data,
                           batch.function_rewards.data};
  for (T const* data : read) {
    if (data == advantages) return data;
  }
  return nullptr;
}

// Where offsets end; -1 if that is not known.
template <real T>
index_t token_count_of(reward_arrays<T> const& batch, index_t advantages, bool per_token) {
  if (per_token) return advantages;
  if (batch.mask.size > 0) return batch.mask.size;
  return batch.token_rewards.size > 0 ? batch.token_rewards.size : -1;
}

}  // namespace detail

/// rule.compute on a device, with all arrays in its memory; the rewards never come to the host.
/// Nothing waits; the statistics go to `report`.
///
///   device_prompt_groups const groups(backend, prompt_groups::ragged(offsets));
///   advantage_report report(backend, most_rollouts);
///   compute_advantages(backend, group_relative<>{}, {.rewards = rewards, .groups = groups.view()},
///                      advantages, report);
///
/// batch       what the rule reads; NaN, as infinity, is a missing reward
/// advantages  [rollouts], or [tokens] if the rule works per token; written; may alias what it may
///             alias on a host
/// returns     only for gae: [tokens] the critic's targets
/// Values and statistics are those of rule.compute, to rounding, and the same on every run.
/// Throws shape_error for sizes that do not fit, config_error for options that make no sense,
/// device_error for arrays that the device cannot use, before anything is asked for. What the
/// arrays hold only the device sees: see advantage_report::read.
template <device_backend Backend, class Rule, real T, class... Returns>
void compute_advantages(Backend const& backend, Rule const& rule,
                        reward_arrays<std::type_identity_t<T>> const& batch,
                        vector_view<T> advantages, advantage_report<Backend>& report,
                        Returns... returns) {
  static_assert(device_advantage_rule<Rule>,
                "lamina: on a device advantages come from rules that are made of row bodies, with "
                "check and run, as those of the library are");
  rule.check(batch, advantages.size, returns.size...);
  detail::device_arguments arguments(backend, "compute_advantages");
  detail::check_arrays(arguments, rule, batch);
  arguments.writes("advantages", advantages, detail::overwritten(batch, advantages.data));
  (arguments.writes("returns", returns, detail::overwritten(batch, returns.data)), ...);
  bool const reads_offsets = !batch.offsets.empty();
  detail::advantage_memory const memory =
      report.begin(rule, batch.rollout_count(), advantages.size, reads_offsets);
  if (reads_offsets) {
    index_t const end = detail::token_count_of(batch, advantages.size, Rule::per_token);
    backend.executor().run(
        1, detail::offsets_body{batch.offsets, end, &memory.record->broken_offsets});
  }
  rule.run(backend.executor(), batch, advantages, memory, returns...);
}

LAMINA_NAMESPACE_END
