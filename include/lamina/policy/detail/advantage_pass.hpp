// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Advantages as row bodies: what rules share that look at a group of rollouts, and how a host runs
// them. A rule is written once, as the bodies that its run() hands to an executor.
#pragma once

#include <limits>
#include <vector>

#include "lamina/core/lanes.hpp"
#include "lamina/policy/reward_batch.hpp"
#include "lamina/policy/reward_statistics.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// What the bodies of a rule leave for each other, and in the end.
struct advantage_record {
  advantage_statistics statistics{};
  spread batch{};              // of the rewards
  double factor = 1;           // of all advantages
  index_t broken_offsets = 0;  // entries that make no sense: all advantages are 0 then
};

// Memory for the bodies of a rule: Rule::scratch_per_rollout doubles a rollout.
class advantage_memory {
 public:
  advantage_memory(advantage_record* at, vector_view<unsigned char> scratch)
      : record(at), scratch_(scratch) {}

  advantage_record* record;

  template <class U>
  vector_view<U> take(index_t count) {
    index_t const words = (count * index_t(sizeof(U)) + 7) / 8;
    vector_view<unsigned char> const own = scratch_.subview(0, 8 * words);
    scratch_ = scratch_.subview(8 * words, scratch_.size - 8 * words);
    return {reinterpret_cast<U*>(own.data), count};
  }

 private:
  vector_view<unsigned char> scratch_;
};

// No reward on the way in, no advantage on the way out.
inline constexpr double no_reward = std::numeric_limits<double>::quiet_NaN();

// A reward as a double. A device cannot refuse infinite ones and takes them as missing.
template <real T>
LAMINA_HOST_DEVICE double scored_reward(T reward) {
  return is_finite(reward) ? static_cast<double>(reward) : no_reward;
}
template <real T>
LAMINA_HOST_DEVICE T advantage_or_zero(double advantage) {
  return is_nan(advantage) ? T(0) : static_cast<T>(advantage);
}

// The rewards of a batch, by rollout.
template <real T>
struct scored_rewards {
  vector_view<T const> rewards;
  LAMINA_HOST_DEVICE double operator()(index_t i) const { return scored_reward(rewards[i]); }
};

// Statistics of `rollouts` rewards and of their groups, before rewards may be overwritten. One row.
// reward(i) is that of rollout i; reward.flat(members), if there is such a thing, says whether a
// group has no spread.
template <class Rewards>
struct reward_statistics_body {
  static constexpr row_schedule schedule = row_schedule::block;
  Rewards reward;
  index_t rollouts;
  group_view groups;
  advantage_record* record;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t /*row*/) const {
    spread const batch = spread_of(lanes, rollouts, reward);
    double flat = 0;
    for (index_t g = lanes.lane(); g < groups.group_count(); g += lanes.count()) {
      flat += is_flat(groups.rollouts(g)) ? 1 : 0;
    }
    flat = lanes.sum(flat);
    if (lanes.lane() != 0) return;
    record->batch = batch;
    record->statistics = statistics_of(batch, rollouts);
    record->statistics.group_count = groups.group_count();
    record->statistics.zero_spread_groups = static_cast<index_t>(flat);
  }

 private:
  LAMINA_HOST_DEVICE bool is_flat(group_members members) const {
    if constexpr (requires { reward.flat(members); }) {
      return reward.flat(members);
    } else {
      Rewards const& values = reward;
      double first = no_reward;
      for (index_t k = 0; k < members.size; ++k) {
        double const difference = values(members[k]) - first;
        if (difference > 1e-140 || difference < -1e-140) return false;  // its square is not 0
        if (is_nan(first)) first = values(members[k]);
      }
      return spread_of(single_lane{}, members.size, [&](index_t k) { return values(members[k]); })
          .flat;
    }
  }
};
template <class Executor, class Rewards>
void run_statistics(Executor const& executor, Rewards const& reward, index_t rollouts,
                    group_view groups, advantage_record* record) {
  executor.run(1, reward_statistics_body<Rewards>{reward, rollouts, groups, record});
}

// A group as a rule's of_group sees it.
template <real T>
struct group_rewards {
  reward_arrays<T> const& batch;
  group_members members;
  spread group;
  advantage_record const* record;

  LAMINA_HOST_DEVICE double operator[](index_t k) const {
    return scored_reward(batch.rewards[members[k]]);
  }
  // Of member k, counted by the lanes.
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE double active_tokens(Lanes lanes, index_t k) const {
    if (record->broken_offsets != 0) return 0;
    index_t const begin = batch.offsets[members[k]], end = batch.offsets[members[k] + 1];
    if (batch.mask.size == 0) return static_cast<double>(end - begin);
    double active = 0;
    for (index_t t = begin + lanes.lane(); t < end; t += lanes.count()) {
      active += batch.active(t) ? 1 : 0;
    }
    return lanes.sum(active);
  }
};

// What is written of an advantage: a T, 0 for none, or for a normalizer a double, NaN for none, and
// beside it those that are rewards as they were, which do not add up to 0 over their group.
template <real T>
struct final_advantages {
  vector_view<T> values;
  LAMINA_HOST_DEVICE void put(index_t i, double advantage, bool /*kept*/) const {
    values[i] = advantage_or_zero<T>(advantage);
  }
};
struct raw_advantages {
  vector_view<double> values, kept;
  LAMINA_HOST_DEVICE void put(index_t i, double advantage, bool is_kept) const {
    values[i] = advantage;
    kept[i] = is_kept && !is_nan(advantage) ? advantage : 0.0;
  }
};

// A row is a group. rule.of_group(lanes, group_rewards) is the function from a reward of the group
// to its advantage, NaN for none.
template <class Rule, real T, class Out>
struct group_advantage_body {
  Rule rule;
  reward_arrays<T> batch;
  advantage_record const* record;
  Out out;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    group_rewards<T> own{batch, batch.groups.rollouts(row), {}, record};
    own.group = spread_of(lanes, own.members.size, [&](index_t k) { return own[k]; });
    auto const advantage = rule.of_group(lanes, own);
    for (index_t k = lanes.lane(); k < own.members.size; k += lanes.count()) {
      double const reward = own[k];
      out.put(own.members[k], is_nan(reward) ? no_reward : advantage(reward),
              keeps_lone_reward(own.group));
    }
  }

 private:
  LAMINA_HOST_DEVICE bool keeps_lone_reward(spread const& group) const {
    if constexpr (requires { rule.lone; }) {
      return keeps_reward(rule.lone, group);
    } else {
      return false;
    }
  }
};
template <class Executor, class Rule, real T, class Out>
void run_groups(Executor const& executor, Rule const& rule, reward_arrays<T> const& batch,
                advantage_record const* record, Out const& out) {
  executor.run(batch.groups.group_count(),
               group_advantage_body<Rule, T, Out>{rule, batch, record, out});
}
template <class Executor, real T>
void run_statistics(Executor const& executor, reward_arrays<T> const& batch,
                    advantage_record* record) {
  run_statistics(executor, scored_rewards<T>{batch.rewards}, batch.rewards.size, batch.groups,
                 record);
}
// All bodies of a rule that looks at one group after another.
template <class Executor, class Rule, real T>
void run_group_rule(Executor const& executor, Rule const& rule, reward_arrays<T> const& batch,
                    vector_view<T> advantages, advantage_record* record) {
  run_statistics(executor, batch, record);
  run_groups(executor, rule, batch, record, final_advantages<T>{advantages});
}

// A batch with other rewards.
template <real T>
reward_arrays<T> with_rewards(reward_arrays<T> batch, vector_view<T const> rewards) {
  batch.rewards = rewards;
  return batch;
}

// What a rule wants of memory for each rollout, in doubles; nothing if it does not say.
template <class Rule>
constexpr index_t scratch_size_of() {
  if constexpr (requires { Rule::scratch_per_rollout; }) {
    return Rule::scratch_per_rollout;
  } else {
    return 0;
  }
}
template <class Rule>
inline constexpr index_t scratch_of = scratch_size_of<Rule>();

// What a rule wants of memory, in doubles.
template <class Rule>
constexpr index_t scratch_size(index_t rollouts, index_t advantages) {
  index_t size = scratch_of<Rule> * rollouts;
  if constexpr (requires { Rule::scratch_per_token; }) size += Rule::scratch_per_token * advantages;
  return size;
}

// The bodies of a rule, run by the host that calls; everything has been checked.
template <class Rule, real T, class... Outputs>
advantage_statistics run_on_host(Rule const& rule, reward_arrays<T> const& batch,
                                 vector_view<T> advantages, Outputs const&... outputs) {
  advantage_record record;
  std::vector<unsigned char> scratch(
      static_cast<std::size_t>(8 * scratch_size<Rule>(batch.rollout_count(), advantages.size)));
  rule.run(host_rows<>{}, batch, advantages, advantage_memory(&record, scratch), outputs...);
  return record.statistics;
}

}  // namespace detail

LAMINA_NAMESPACE_END
