// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/device_advantage.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "lamina/policy/baseline_advantage.hpp"
#include "lamina/policy/combined_reward.hpp"
#include "lamina/policy/contrastive.hpp"
#include "lamina/policy/optimal_token_baseline.hpp"
#include "lamina/policy/step_groups.hpp"
#include "lamina/policy/token_advantage.hpp"
#include "tests/support/device_rewards.hpp"
#include "tests/support/simulated_device.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

template <class T>
constexpr T missing = std::numeric_limits<T>::quiet_NaN();
template <class T>
constexpr T infinite = std::numeric_limits<T>::infinity();

void check_equal(advantage_statistics const& found, advantage_statistics const& expected) {
  CHECK(found.group_count == expected.group_count);
  CHECK(found.zero_spread_groups == expected.zero_spread_groups);
  CHECK(found.missing_rewards == expected.missing_rewards);
  CHECK(found.reward_mean == doctest::Approx(expected.reward_mean).epsilon(1e-12));
  CHECK(found.reward_std == doctest::Approx(expected.reward_std).epsilon(1e-12));
}
template <class T>
void check_equal(std::vector<T> const& found, std::vector<T> const& expected) {
  double const accuracy = sizeof(T) == 8 ? 1e-11 : 1e-5;
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    double const a = static_cast<double>(found[i]), b = static_cast<double>(expected[i]);
    CHECK(std::abs(a - b) <= accuracy * (1 + std::abs(b)));
    CHECK((a == 0) == (b == 0));
  }
}

// Advantages of a rule on a device are those of its compute on the host. `device_rule` is the same
// rule with its arrays on the device.
template <class Device, class Rule, class T>
void compare(Rule const& rule, owned_rewards<T> const& batch, Device const& device,
             Rule const& device_rule) {
  std::size_t const rollouts = static_cast<std::size_t>(batch.view().groups.rollout_count());
  std::size_t const count =
      Rule::per_token ? static_cast<std::size_t>(batch.offsets.back()) : rollouts;
  std::vector<T> expected(count, T(9));
  advantage_statistics const host = rule.compute(batch.view(), vector_view<T>(expected));

  uploaded_rewards<Device, T> arrays(device, batch);
  device_vector<Device, T> values(device, static_cast<index_t>(count));
  advantage_report report(device, static_cast<index_t>(rollouts), static_cast<index_t>(count));
  device.synchronize();
  compute_advantages(device, device_rule, arrays.view(), values.view(), report);
  CHECK(device.stream().pending() >= 1);
  check_equal(report.read(device), host);
  check_equal(values.to_host(device), expected);
  if constexpr (!Rule::per_token) {  // over the rewards
    compute_advantages(device, device_rule, arrays.view(), arrays.rewards.view(), report);
    check_equal(arrays.rewards.to_host(device), expected);
  }
}
template <class Device, class Rule, class T>
void compare(Rule const& rule, owned_rewards<T> const& batch) {
  compare<Device>(rule, batch, Device{}, rule);
}

}  // namespace

TEST_CASE("rewards 1 and 0 give plus and minus 1/sqrt(2) on a device") {
  using device_type = simulated_device<float>;
  device_type const device;
  std::vector<float> const rewards{1, 0, 3, 3};
  device_vector<device_type, float> values(device, vector_view<float const>(rewards));
  advantage_report report(device);
  compute_advantages(device, group_relative<>{},
                     {.rewards = values.view(), .groups = group_view::uniform(4, 2)}, values.view(),
                     report);
  std::vector<float> const found = values.to_host(device);
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

TEST_CASE_TEMPLATE("advantages of ragged groups are the host's, by one lane and by many", Device,
                   simulated_device<float>, simulated_device<double>, simulated_device<double, 7>,
                   simulated_device<float, 33>) {
  using T = typename Device::scalar_type;
  auto batch = ragged_batch<T>();
  auto const compare_all = [&](missing_reward m, lone_rollout lone) {
    compare<Device>(group_relative<>{.missing = m, .lone = lone}, batch);
    compare<Device>(group_relative<no_scale>{.missing = m, .lone = lone}, batch);
    compare<Device>(group_relative<by_batch_std>{.missing = m, .lone = lone}, batch);
    compare<Device>(group_relative<by_floored_group_std>{.missing = m, .lone = lone}, batch);
    compare<Device>(leave_one_out<>{.missing = m, .lone = lone}, batch);
    compare<Device>(leave_one_out<batch_whitening>{.missing = m, .lone = lone}, batch);
    compare<Device>(length_weighted_baseline{.missing = m, .lone = lone}, batch);
    compare<Device>(compensated_group_mean{.missing = m, .lone = lone}, batch);
    compare<Device>(
        compensated_group_mean{
            .carriers = gradient_carriers::varied_groups, .missing = m, .lone = lone},
        batch);
    compare<Device>(second_best<>{.missing = m}, batch);
    compare<Device>(greedy_outcome_baseline{.missing = m}, batch);
    compare<Device>(token_whitened<group_relative<no_scale>>{{.missing = m, .lone = lone}, {}},
                    batch);
    compare<Device>(token_whitened<leave_one_out<>, no_whitening>{{.missing = m, .lone = lone}, {}},
                    batch);
  };
  compare_all(missing_reward::refuse, lone_rollout::zero);
  compare<Device>(verified_labels{}, batch);
  for (std::size_t i : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 20u}) batch.rewards[i] = missing<T>;
  compare_all(missing_reward::exclude, lone_rollout::raw_reward);
}

TEST_CASE_TEMPLATE("advantages of several reward functions are the host's", Device,
                   simulated_device<double>, simulated_device<double, 7>,
                   simulated_device<float, 33>) {
  using T = typename Device::scalar_type;
  auto batch = ragged_batch<T>();
  Device const device;
  std::vector<double> const weights{0.5, 2};
  auto const device_weights = on_device(device, weights);
  auto const compare_all = [&](missing_reward m, lone_rollout lone) {
    using gdpo = decoupled_group_relative<>;
    using verl_gdpo =
        token_whitened<decoupled_group_relative<by_group_std, no_whitening>, token_whitening>;
    auto const weighed = [&](auto const& w) {
      return gdpo{.missing = m, .lone = lone, .weights = w};
    };
    compare<Device>(weighed(vector_view<double const>(weights)), batch, device,
                    weighed(device_weights.view()));
    compare<Device>(verl_gdpo{{.missing = m, .lone = lone}, {}}, batch);
    compare<Device>(weighted_rewards<>{{.missing = m, .lone = lone}, weights}, batch, device,
                    weighted_rewards<>{{.missing = m, .lone = lone}, device_weights.view()});
  };
  compare_all(missing_reward::refuse, lone_rollout::zero);
  for (std::size_t i = 0; i < 25; ++i) batch.function_rewards[2 * i + i % 2] = missing<T>;
  batch.function_rewards[6] = batch.function_rewards[7] = missing<T>;
  compare_all(missing_reward::exclude, lone_rollout::raw_reward);
}

TEST_CASE_TEMPLATE("advantages per token are the host's", Device, simulated_device<double>,
                   simulated_device<float>, simulated_device<double, 7>) {
  using T = typename Device::scalar_type;
  auto batch = ragged_batch<T>();
  auto const compare_all = [&] {
    compare<Device>(reward_to_go<>{.gamma = 0.9}, batch);
    compare<Device>(reward_to_go<no_whitening>{.gamma = 0.9, .masked = masked_tokens::cut}, batch);
    compare<Device>(greedy_baseline{}, batch);
    compare<Device>(gae<>{.gamma = 0.9, .lambda = 0.8}, batch);
    compare<Device>(gae<no_whitening>{}, batch);
    compare<Device>(optimal_token_baseline{}, batch);
    compare<Device>(
        optimal_token_baseline{.position = token_position::in_sequence, .zero_tail = false}, batch);
  };
  compare_all();
  compare<Device>(summed_token_rewards<>{}, batch);
  batch.token_rewards.clear();
  compare_all();
  batch.mask.clear();
  for (T& value : batch.values) value = is_nan(value) ? T(1) : value;
  compare_all();
}

TEST_CASE("the critic's targets come with its estimates, over the rewards they are made of") {
  using device_type = simulated_device<double>;
  auto const batch = ragged_batch<double>();
  std::vector<double> advantages(batch.mask.size()), returns(batch.mask.size());
  gae<> const rule{.gamma = 0.9, .lambda = 0.8};
  rule.compute(batch.view(), vector_view<double>(advantages), vector_view<double>(returns));
  device_type const device;
  uploaded_rewards<device_type, double> arrays(device, batch);
  advantage_report report(device, 30);
  compute_advantages(device, rule, arrays.view(), arrays.token_rewards.view(), report,
                     arrays.values.view());
  check_equal(arrays.token_rewards.to_host(device), advantages);
  check_equal(arrays.values.to_host(device), returns);
}

TEST_CASE_TEMPLATE("advantages of steps and episodes are the host's", Device,
                   simulated_device<double>, simulated_device<float>, simulated_device<double, 7>,
                   simulated_device<double, 33>) {
  using T = typename Device::scalar_type;
  auto batch = episodes<T>();
  compare<Device>(group_in_group<>{}, batch);
  compare<Device>(group_in_group<no_scale>{.gamma = 1,
                                           .omega = 0.5,
                                           .statistics = episode_statistics::over_rows,
                                           .divide_by_length = true},
                  batch);
  batch.episode_rewards.clear();
  batch.environment_steps.clear();
  batch.invalid_actions.clear();
  compare<Device>(group_in_group<>{.lone = lone_rollout::zero}, batch);
  batch.anchors.clear();
  compare<Device>(group_in_group<>{.omega = 0}, batch);
}

TEST_CASE("no rewards at all") {
  using device_type = simulated_device<double>;
  owned_rewards<double> batch;
  compare<device_type>(group_relative<>{}, batch);
  compare<device_type>(leave_one_out<batch_whitening>{}, batch);
  batch.offsets = {0};
  compare<device_type>(length_weighted_baseline{}, batch);
  compare<device_type>(gae<>{}, batch);
  std::vector<index_t> const empty{0, 0, 0};
  batch.groups = prompt_groups::ragged(empty);
  compare<device_type>(group_relative<>{}, batch);
}

TEST_CASE("what the host can see is refused at once, what it cannot when the report is read") {
  using device_type = simulated_device<float>;
  device_type const device;
  std::vector<float> host{1, 0, infinite<float>, 1};
  auto rewards = on_device(device, host);
  advantage_report report(device);
  device.synchronize();
  group_relative<> const rule;
  reward_arrays<float> const batch{.rewards = rewards.view(), .groups = group_view::uniform(4, 2)};
  auto const compute = [&](auto const& r, reward_arrays<float> const& b) {
    compute_advantages(device, r, b, rewards.view(), report);
  };
  CHECK_THROWS_AS(group_view::uniform(4, 3), shape_error);
  CHECK_THROWS_AS(group_view::uniform(4, 0), shape_error);
  CHECK_THROWS_AS(compute(rule, {.rewards = rewards.view()}), shape_error);
  CHECK_THROWS_AS(compute(group_relative<>{.scale = {.epsilon = -1}}, batch), config_error);
  CHECK_THROWS_WITH_AS(
      compute(leave_one_out<batch_whitening>{}, batch),
      "compute_advantages: the batch has 4 rollouts and 4 advantages, the report is for "
      "0 rollouts of 0 tokens at most",
      shape_error);
  CHECK_THROWS_WITH_AS(compute(rule, {.rewards = host, .groups = group_view::uniform(4, 2)}),
                       "compute_advantages: batch.rewards [4] does not lie in memory that the "
                       "backend's device can use",
                       device_error);
  prompt_groups const host_groups = prompt_groups::uniform(4, 2);
  CHECK_THROWS_AS(compute(rule, {.rewards = rewards.view(), .groups = host_groups.view()}),
                  device_error);
  CHECK(device.stream().pending() == 0);
  compute(rule, batch);
  CHECK_THROWS_WITH_AS(report.read(device),
                       "advantage_report::read: 1 rewards were not finite, expected finite "
                       "rewards, or a rule with missing_reward::exclude",
                       config_error);
  CHECK(rewards.to_host(device)[2] == 0);
}

TEST_CASE("a number that is not finite leaves its rollout without advantages") {
  using device_type = simulated_device<double>;
  device_type const device;
  owned_rewards<double> batch;
  batch.groups = prompt_groups::uniform(3, 3);
  batch.offsets = {0, 2, 4, 6};
  batch.token_rewards = {1, 0, 2, infinite<double>, 3, 1};
  batch.values = {0, 0, 0, 0, 0, missing<double>};
  uploaded_rewards<device_type, double> arrays(device, batch);
  device_vector<device_type, double> advantages(device, 6);
  advantage_report report(device, 3);
  compute_advantages(device, reward_to_go<no_whitening>{}, arrays.view(), advantages.view(),
                     report);
  CHECK(advantages.to_host(device) == std::vector<double>{1, 0, 0, 0, 4, 1});
  CHECK_THROWS_AS(report.read(device), config_error);
  compute_advantages(device, gae<no_whitening>{}, arrays.view(), advantages.view(), report);
  CHECK(advantages.to_host(device) == std::vector<double>{1, 0, 0, 0, 0, 0});
  compute_advantages(device, reward_to_go<>{}, arrays.view(), advantages.view(), report);
  auto const whitened = advantages.to_host(device);
  CHECK(whitened[2] == 0);
  CHECK(whitened[3] == 0);
  CHECK(whitened[0] + whitened[1] + whitened[4] + whitened[5] == doctest::Approx(0));
}

TEST_CASE_TEMPLATE("offsets that are no bounds are never followed", Device,
                   simulated_device<double>, simulated_device<double, 7>) {
  Device const device;
  owned_rewards<double> batch;
  batch.groups = prompt_groups::uniform(2, 2);
  batch.rewards = {1, 2};
  batch.offsets = {0, 1'000'000'000, 5};
  uploaded_rewards<Device, double> arrays(device, batch);
  device_vector<Device, double> advantages(device, 5), by_rollout(device, 2);
  advantage_report report(device, 2);
  auto const refused = [&](auto const& rule, vector_view<double> out) {
    compute_advantages(device, rule, arrays.view(), out, report);
    CHECK_THROWS_WITH_AS(report.read(device),
                         "advantage_report::read: 1 entries of batch.offsets are no bounds; "
                         "expected offsets that start at 0, ascend and end at the tokens of the "
                         "batch",
                         shape_error);
  };
  refused(reward_to_go<>{}, advantages.view());
  CHECK(advantages.to_host(device) == std::vector<double>(5));
  refused(token_whitened<group_relative<>>{}, advantages.view());
  CHECK(advantages.to_host(device) == std::vector<double>(5));
  refused(length_weighted_baseline{}, by_rollout.view());
  CHECK(by_rollout.to_host(device) == std::vector<double>(2));
  std::vector<index_t> const bounds{0, 2, 5};
  arrays.offsets.assign(device, bounds);
  device.synchronize();
  compute_advantages(device, reward_to_go<no_whitening>{}, arrays.view(), advantages.view(),
                     report);
  CHECK(report.read(device).reward_mean == 1.5);
  CHECK(advantages.to_host(device) == std::vector<double>{1, 1, 2, 2, 2});
}
