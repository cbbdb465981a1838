// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rewards with everything that advantage rules read, on a host and in the memory of a device.
#pragma once

#include <limits>
#include <vector>

#include "lamina/core/random.hpp"
#include "lamina/policy/device_advantage.hpp"
#include "tests/support/device_batch.hpp"

namespace lamina::testing {

/// A batch of the host that owns its arrays.
template <class T>
struct owned_rewards {
  prompt_groups groups;
  std::vector<T> rewards, token_rewards, values, old_log_probs, squared_probabilities,
      rollout_weights, greedy_rewards, function_rewards, episode_rewards;
  std::vector<index_t> offsets, trajectories, environment_steps, anchors;
  std::vector<std::uint8_t> mask, invalid_actions;
  index_t function_count = 0;

  reward_batch<T> view() const {
    return {.rewards = rewards,
            .groups = groups,
            .offsets = offsets,
            .mask = mask,
            .token_rewards = token_rewards,
            .values = values,
            .old_log_probs = old_log_probs,
            .squared_probabilities = squared_probabilities,
            .rollout_weights = rollout_weights,
            .greedy_rewards = greedy_rewards,
            .function_rewards = functions(function_rewards.data()),
            .trajectories = trajectories,
            .environment_steps = environment_steps,
            .episode_rewards = episode_rewards,
            .anchors = anchors,
            .invalid_actions = invalid_actions};
  }
  matrix_view<T const> functions(T const* data) const {
    if (function_count == 0) return {};
    return {data, static_cast<index_t>(function_rewards.size()) / function_count, function_count};
  }
};

/// The same on a device.
template <class Device, class T>
struct uploaded_rewards {
  owned_rewards<T> const& host;
  device_prompt_groups<Device> groups, trajectories, anchors;
  device_vector<Device, T> rewards, token_rewards, values, old_log_probs, squared_probabilities,
      rollout_weights, greedy_rewards, function_rewards, episode_rewards;
  device_vector<Device, index_t> offsets, environment_steps;
  device_vector<Device, std::uint8_t> mask, invalid_actions;

  uploaded_rewards(Device const& device, owned_rewards<T> const& batch)
      : host(batch),
        groups(device, batch.groups),
        trajectories(device, split(batch, batch.trajectories)),
        anchors(device, split(batch, batch.anchors)),
        rewards(on_device(device, batch.rewards)),
        token_rewards(on_device(device, batch.token_rewards)),
        values(on_device(device, batch.values)),
        old_log_probs(on_device(device, batch.old_log_probs)),
        squared_probabilities(on_device(device, batch.squared_probabilities)),
        rollout_weights(on_device(device, batch.rollout_weights)),
        greedy_rewards(on_device(device, batch.greedy_rewards)),
        function_rewards(on_device(device, batch.function_rewards)),
        episode_rewards(on_device(device, batch.episode_rewards)),
        offsets(on_device(device, batch.offsets)),
        environment_steps(on_device(device, batch.environment_steps)),
        mask(on_device(device, batch.mask)),
        invalid_actions(on_device(device, batch.invalid_actions)) {}

  reward_arrays<T> view() const {
    return {.rewards = rewards.view(),
            .groups = groups.view(),
            .offsets = offsets.view(),
            .mask = mask.view(),
            .token_rewards = token_rewards.view(),
            .values = values.view(),
            .old_log_probs = old_log_probs.view(),
            .squared_probabilities = squared_probabilities.view(),
            .rollout_weights = rollout_weights.view(),
            .greedy_rewards = greedy_rewards.view(),
            .function_rewards = host.functions(function_rewards.view().data),
            .trajectories = trajectories.view(),
            .environment_steps = environment_steps.view(),
            .episode_rewards = episode_rewards.view(),
            .anchors = anchors.view(),
            .invalid_actions = invalid_actions.view()};
  }

 private:
  static prompt_groups split(owned_rewards<T> const& batch, std::vector<index_t> const& ids) {
    return ids.empty() ? prompt_groups{} : batch.groups.split(ids);
  }
};

/// Groups of 10, 0, 1, 14 and 5 rollouts of 0 to 6 tokens, a tenth of which are masked; quarters as
/// rewards, all equal in the third group of several.
template <class T>
owned_rewards<T> ragged_batch() {
  counter_generator random(5);
  auto const quarter = [&] { return static_cast<T>(random.below(5)) * T(0.25); };
  owned_rewards<T> batch;
  std::vector<index_t> const bounds{0, 10, 10, 11, 25, 30};
  batch.groups = prompt_groups::ragged(bounds);
  batch.offsets = {0};
  batch.function_count = 2;
  for (index_t i = 0; i < 30; ++i) {
    batch.rewards.push_back(i >= 25 ? T(0.3) : quarter());
    batch.greedy_rewards.push_back(quarter());
    batch.offsets.push_back(batch.offsets.back() + static_cast<index_t>(random.below(7)));
    batch.function_rewards.push_back(quarter());
    batch.function_rewards.push_back(i >= 25 ? T(2) : T(10) * quarter());
  }
  for (index_t t = 0; t < batch.offsets.back(); ++t) {
    batch.mask.push_back(random.below(10) == 0 ? 0 : 1);
    batch.token_rewards.push_back(batch.mask.back() != 0 ? quarter()
                                                         : std::numeric_limits<T>::quiet_NaN());
    batch.old_log_probs.push_back(T(-0.1) - quarter());
    batch.squared_probabilities.push_back(T(0.5) + quarter() / T(2));
    batch.rollout_weights.push_back(T(0.5) + quarter());
    batch.values.push_back(batch.mask.back() != 0 ? quarter()
                                                  : std::numeric_limits<T>::quiet_NaN());
  }
  return batch;
}

/// Two tasks with three and two episodes of several steps, which stand mixed; few states.
template <class T>
owned_rewards<T> episodes() {
  counter_generator random(9);
  owned_rewards<T> batch;
  std::vector<index_t> tasks;
  for (index_t i = 0; i < 40; ++i) {
    index_t const episode = static_cast<index_t>(random.below(5));
    batch.trajectories.push_back(episode);
    tasks.push_back(episode < 3 ? 0 : 1);
    batch.anchors.push_back(static_cast<index_t>(random.below(4)));
    batch.environment_steps.push_back(i / 7);
    batch.rewards.push_back(static_cast<T>(random.below(4)) * T(0.5));
    batch.episode_rewards.push_back(static_cast<T>(episode == 1 ? 2 : episode));
    batch.invalid_actions.push_back(random.below(5) == 0 ? 1 : 0);
  }
  batch.groups = prompt_groups::by_id(tasks);
  return batch;
}

}  // namespace lamina::testing
