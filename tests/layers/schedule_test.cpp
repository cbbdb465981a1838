// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/schedule.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

using namespace lamina;

namespace {

constexpr double unmeasured = std::numeric_limits<double>::quiet_NaN();

template <class Schedule>
std::vector<index_t> draws_of_each(Schedule schedule, index_t layer_count, index_t draws) {
  std::vector<index_t> counts(static_cast<std::size_t>(layer_count));
  for (index_t draw = 0; draw < draws; ++draw) {
    for (index_t const layer : schedule.layers_at(draw * schedule.every)) {
      ++counts[static_cast<std::size_t>(layer)];
    }
  }
  return counts;
}

// Every step of a period has the layers of its first step, and only first steps change anything.
template <class Schedule>
void check_periods(Schedule const& schedule) {
  CHECK(changes_at(schedule, 0));
  for (index_t step = 0; step < 60; ++step) {
    CHECK(schedule.layers_at(step) == schedule.layers_at(step / schedule.every * schedule.every));
    if (step % schedule.every != 0) CHECK_FALSE(changes_at(schedule, step));
    if (step > 0) {
      CHECK(changes_at(schedule, step) ==
            !(schedule.layers_at(step) == schedule.layers_at(step - 1)));
    }
  }
}

}  // namespace

TEST_CASE("fixed_layers: the same at every step, changing at the first only") {
  constexpr fixed_layers schedule{.layers = layer_range(2, 4)};
  static_assert(schedule.layers_at(0) == layer_range(2, 4));
  static_assert(changes_at(schedule, 0) && !changes_at(schedule, 1'000'000));
  CHECK(schedule.layers_at(7) == layer_range(2, 4));
}

TEST_CASE("rotating_layers: the next layers in turn, and again from the lowest") {
  // [rotating]
  constexpr rotating_layers schedule{.layers = all_layers(5), .count = 2, .every = 10};
  static_assert(schedule.layers_at(0) == layer_range(0, 1));
  static_assert(schedule.layers_at(9) == layer_range(0, 1));
  static_assert(schedule.layers_at(10) == layer_range(2, 3));
  static_assert(schedule.layers_at(20) == (single_layer(4) | single_layer(0)));
  static_assert(changes_at(schedule, 10) && !changes_at(schedule, 11));
  // [/rotating]
  check_periods(schedule);
  constexpr rotating_layers some{.layers = every_layer(12, 5, 1), .count = 1, .every = 1};
  static_assert(some.layers_at(4) == single_layer(6));  // 1, 6, 11, 1, 6
  CHECK(rotating_layers{.layers = all_layers(3), .count = 3}.layers_at(5) == all_layers(3));
  CHECK(some.layers_at(std::numeric_limits<index_t>::max()).size() == 1);
}

TEST_CASE("rotating_layers: over a whole turn every layer is trained equally often") {
  for (index_t const count : {1, 2, 3, 7}) {
    auto const counts =
        draws_of_each(rotating_layers{.layers = all_layers(7), .count = count, .every = 3}, 7, 7);
    for (index_t const times : counts) CHECK(times == count);
  }
}

TEST_CASE("listed_layers: one set after the other, and again from the first") {
  listed_layers const schedule{.sets = {layer_range(3, 5), single_layer(0), layer_range(1, 2)},
                               .every = 4};
  CHECK(schedule.layers_at(0) == layer_range(3, 5));
  CHECK(schedule.layers_at(7) == single_layer(0));
  CHECK(schedule.layers_at(11) == layer_range(1, 2));
  CHECK(schedule.layers_at(12) == layer_range(3, 5));
  check_periods(schedule);
}

TEST_CASE("lisa_layers: a pure function of seed and step, in constant expressions") {
  constexpr lisa_layers schedule{.layers = all_layers(24), .count = 4, .every = 5, .seed = 3};
  static_assert(schedule.layers_at(12) == schedule.layers_at(10));
  static_assert(schedule.layers_at(12).size() == 4);
  check_periods(schedule);
  layer_set const late = schedule.layers_at(500);
  CHECK(lisa_layers(schedule).layers_at(500) == late);
  lisa_layers other = schedule;
  other.seed = 4;
  index_t different = 0;
  for (index_t step = 0; step < 100; step += 5) {
    different += !(schedule.layers_at(step) == other.layers_at(step));
  }
  CHECK(different > 15);
}

TEST_CASE("lisa_layers: every layer and every pair is drawn as often as any other") {
  lisa_layers const schedule{.layers = all_layers(5), .count = 2, .every = 3, .seed = 9};
  index_t const draws = 10'000;
  // Binomial with p = 2/5: four standard deviations are 196.
  for (index_t const times : draws_of_each(schedule, 5, draws)) {
    CHECK(times == doctest::Approx(4000).epsilon(0.05));
  }
  std::vector<index_t> pairs(25);
  for (index_t draw = 0; draw < draws; ++draw) {
    layer_set const chosen = schedule.layers_at(draw * 3);
    REQUIRE(chosen.size() == 2);
    ++pairs[static_cast<std::size_t>(5 * chosen.lowest() + chosen.highest())];
  }
  for (std::size_t a = 0; a < 5; ++a) {
    for (std::size_t b = a + 1; b < 5; ++b) {
      CHECK(pairs[5 * a + b] == doctest::Approx(1000).epsilon(0.12));  // four deviations are 120
    }
  }
}

TEST_CASE("contribution_weighted_layers: probabilities of the draw, worked by hand") {
  // Weights 1, 2, 3 and, for the layer that was not measured, exp(mean of their logarithms).
  double const mean = (std::log(1.0) + std::log(2.0) + std::log(3.0)) / 3;
  contribution_weighted_layers schedule{
      .contributions = {std::log(1.0), std::log(2.0), unmeasured, std::log(3.0)},
      .count = 1,
      .every = 7,
      .seed = 2};
  double const weights[] = {1, 2, std::exp(mean), 3};
  double const total = 1 + 2 + std::exp(mean) + 3;
  index_t const draws = 20'000;
  auto const counts = draws_of_each(schedule, 4, draws);
  for (std::size_t layer = 0; layer < 4; ++layer) {
    double const p = weights[layer] / total;
    double const deviation = std::sqrt(p * (1 - p) / static_cast<double>(draws));
    CHECK(std::fabs(static_cast<double>(counts[layer]) / static_cast<double>(draws) - p) <
          4 * deviation);
  }
  check_periods(schedule);

  // Two of three without replacement: layer 0 is left out with probability
  // 2/6 * 3/4 + 3/6 * 2/3 = 7/12.
  schedule.contributions = {std::log(1.0), std::log(2.0), std::log(3.0)};
  schedule.count = 2;
  auto const pairs = draws_of_each(schedule, 3, draws);
  CHECK(static_cast<double>(pairs[0]) / static_cast<double>(draws) ==
        doctest::Approx(5.0 / 12).epsilon(0.035));
}

TEST_CASE("contribution_weighted_layers: cold it takes the best, hot it takes any") {
  contribution_weighted_layers schedule{
      .contributions = {0.1, 0.9, 0.5, -0.2}, .count = 2, .temperature = 1e-3};
  for (index_t step = 0; step < 50; ++step) CHECK(schedule.layers_at(step) == layer_range(1, 2));
  schedule.temperature = 1e6;
  auto const counts = draws_of_each(schedule, 4, 4000);
  CHECK(*std::min_element(counts.begin(), counts.end()) > 1800);
}

TEST_CASE("schedules: options that make no sense are refused by name") {
  CHECK_THROWS_WITH_AS(fixed_layers{single_layer(1)}.layers_at(-1),
                       "fixed_layers: step is -1, expected >= 0", config_error);
  CHECK_THROWS_WITH_AS(fixed_layers{}.layers_at(0),
                       "fixed_layers: layers is empty, expected at least one layer", config_error);
  CHECK_THROWS_WITH_AS((rotating_layers{.layers = all_layers(4), .every = 0}.layers_at(0)),
                       "rotating_layers: every is 0, expected at least 1 step", config_error);
  CHECK_THROWS_WITH_AS((rotating_layers{.layers = all_layers(4), .count = 5}.layers_at(0)),
                       "rotating_layers: count is 5, expected 1..4, the number of layers to choose "
                       "from",
                       config_error);
  CHECK_THROWS_AS(listed_layers{}.layers_at(0), config_error);
  CHECK_THROWS_AS((listed_layers{.sets = {layer_set()}}.layers_at(0)), config_error);
  CHECK_THROWS_WITH_AS(
      (lisa_layers{.layers = all_layers(4), .count = 0}.layers_at(0)),
      "lisa_layers: count is 0, expected 1..4, the number of layers to choose from", config_error);
  using weighted = contribution_weighted_layers;
  CHECK_THROWS_WITH_AS((weighted{.contributions = {unmeasured, unmeasured}}.layers_at(0)),
                       "contribution_weighted_layers: no layer was measured, expected at least one",
                       config_error);
  CHECK_THROWS_AS((weighted{.contributions = {1, 2}, .count = 3}.layers_at(0)), config_error);
  CHECK_THROWS_AS((weighted{.contributions = {1, 2}, .temperature = 0}.layers_at(0)), config_error);
  CHECK_THROWS_AS(
      (weighted{.contributions = {1, std::numeric_limits<double>::infinity()}}.layers_at(0)),
      config_error);
  CHECK_THROWS_AS((weighted{.contributions = std::vector<double>(513)}.layers_at(0)), config_error);
}
