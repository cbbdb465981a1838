// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/device_advantage.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "lamina/core/random.hpp"
#include "lamina/policy/baseline_advantage.hpp"
#include "tests/support/simulated_device.hpp"

using namespace lamina;
using lamina::testing::simulated_device;

namespace {

template <class Device, class Rule>
void compare(Rule const& rule, std::vector<typename Device::scalar_type> const& rewards,
             index_t group_size) {
  using T = typename Device::scalar_type;
  index_t const rollouts = static_cast<index_t>(rewards.size());
  reward_batch<T> const batch{.rewards = rewards,
                              .groups = prompt_groups::uniform(rollouts, group_size)};
  std::vector<T> expected(rewards.size());
  advantage_statistics const host = rule.compute(batch, vector_view<T>(expected));

  Device const device;
  device_vector<Device, T> values(device, vector_view<T const>(rewards));
  advantage_report report(device);
  compute_advantages(device, rule, vector_view<T const>(values.view()), group_size, values.view(),
                     report);
  CHECK(device.stream().pending() >= 2);
  advantage_statistics const found = report.read(device);
  CHECK(found.group_count == host.group_count);
  CHECK(found.zero_spread_groups == host.zero_spread_groups);
  CHECK(found.missing_rewards == host.missing_rewards);
  CHECK(found.reward_mean == doctest::Approx(host.reward_mean).epsilon(1e-12));
  CHECK(found.reward_std == doctest::Approx(host.reward_std).epsilon(1e-12));
  std::vector<T> const advantages = values.to_host(device);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    double const accuracy = sizeof(T) == 8 ? 1e-12 : 1e-6;
    CHECK(std::abs(static_cast<double>(advantages[i] - expected[i])) <=
          accuracy * (1 + std::abs(static_cast<double>(expected[i]))));
  }
}

}  // namespace

TEST_CASE("rewards 1 and 0 give plus and minus 1/sqrt(2) on a device") {
  using device_type = simulated_device<float>;
  device_type const device;
  std::vector<float> const rewards{1, 0, 3, 3};
  device_vector<device_type, float> on_device(device, vector_view<float const>(rewards));
  device_vector<device_type, float> advantages(device, 4);
  advantage_report report(device);
  compute_advantages(device, group_relative<>{}, vector_view<float const>(on_device.view()), 2,
                     advantages.view(), report);
  std::vector<float> const found = advantages.to_host(device);
  CHECK(found[0] == doctest::Approx(0.70711).epsilon(1e-5));
  CHECK(found[1] == doctest::Approx(-0.70711).epsilon(1e-5));
  CHECK(found[2] == 0);
  CHECK(found[3] == 0);
  CHECK(report.read(device).zero_spread_groups == 1);
  advantage_statistics copy;
  device.copy(&copy, report.on_device(), sizeof copy);
  device.synchronize();
  CHECK(copy.reward_mean == 1.75);
}

TEST_CASE_TEMPLATE("advantages of groups are the host's, by one lane and by many", Device,
                   simulated_device<float>, simulated_device<double>, simulated_device<double, 7>,
                   simulated_device<float, 7>) {
  using T = typename Device::scalar_type;
  counter_generator random(3);
  std::vector<T> rewards;
  for (int i = 0; i < 60; ++i) rewards.push_back(static_cast<T>(random.below(5)) * T(0.25));
  for (std::size_t i = 40; i < 50; ++i) rewards[i] = T(0.3);  // equal
  compare<Device>(group_relative<>{}, rewards, 10);
  compare<Device>(group_relative<no_scale>{}, rewards, 10);
  compare<Device>(group_relative<by_batch_std>{}, rewards, 10);
  compare<Device>(group_relative<by_floored_group_std>{}, rewards, 10);
  compare<Device>(leave_one_out<>{}, rewards, 10);
  compare<Device>(leave_one_out<>{.lone = lone_rollout::raw_reward}, rewards, 1);
  compare<Device>(group_relative<>{.lone = lone_rollout::raw_reward}, rewards, 1);

  for (std::size_t i = 1; i < 10; ++i) rewards[i] = std::numeric_limits<T>::quiet_NaN();
  rewards[30] = std::numeric_limits<T>::quiet_NaN();
  compare<Device>(group_relative<>{.missing = missing_reward::exclude}, rewards, 10);
  compare<Device>(leave_one_out<>{.missing = missing_reward::exclude}, rewards, 10);
}

TEST_CASE("no rewards at all") { compare<simulated_device<double>>(group_relative<>{}, {}, 4); }

TEST_CASE("what the host can see is refused at once, what it cannot when the report is read") {
  using device_type = simulated_device<float>;
  device_type const device;
  std::vector<float> host{1, 0, std::numeric_limits<float>::infinity(), 1};
  device_vector<device_type, float> rewards(device, vector_view<float const>(host));
  device.synchronize();
  advantage_report report(device);
  device.synchronize();
  vector_view<float const> const view = rewards.view();
  CHECK_THROWS_AS(compute_advantages(device, group_relative<>{}, view, 3, rewards.view(), report),
                  shape_error);
  CHECK_THROWS_AS(compute_advantages(device, group_relative<>{}, view, 0, rewards.view(), report),
                  shape_error);
  CHECK_THROWS_AS(compute_advantages(device, group_relative<>{.scale = {.epsilon = -1}}, view, 2,
                                     rewards.view(), report),
                  config_error);
  CHECK_THROWS_WITH_AS(
      compute_advantages(device, group_relative<>{}, vector_view<float const>(host), 2,
                         rewards.view(), report),
      "compute_advantages: rewards [4] does not lie in memory that the backend's "
      "device can use",
      device_error);
  CHECK(device.stream().pending() == 0);
  compute_advantages(device, group_relative<>{}, view, 2, rewards.view(), report);
  CHECK_THROWS_WITH_AS(report.read(device),
                       "advantage_report::read: 1 rewards were not finite, expected finite "
                       "rewards, or a rule with missing_reward::exclude",
                       config_error);
  CHECK(rewards.to_host(device)[2] == 0);
}
