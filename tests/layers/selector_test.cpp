// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/selector.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "lamina/core/random.hpp"

using namespace lamina;

namespace {

constexpr double unmeasured = std::numeric_limits<double>::quiet_NaN();
constexpr double infinite = std::numeric_limits<double>::infinity();

constexpr double profile_of_six[] = {0.2, 0.9, unmeasured, 0.9, -0.1, 0.5};
constexpr vector_view<double const> profile{profile_of_six, 6};

constexpr layer_set of(std::initializer_list<index_t> layers) {
  layer_set set;
  for (index_t const layer : layers) set.insert(layer);
  return set;
}

}  // namespace

TEST_CASE("selectors: every selector is usable in constant expressions") {
  static_assert(single_layer(17) == of({17}));
  static_assert(layer_range(3, 5) == of({3, 4, 5}));
  static_assert(layer_range(4, 4) == single_layer(4));
  static_assert(first_layers(8, 3) == of({0, 1, 2}));
  static_assert(last_layers(8, 3) == of({5, 6, 7}));
  static_assert(middle_layers(28, 5) == layer_range(11, 15));
  static_assert(middle_layers(36, 5) == layer_range(15, 19));
  static_assert(every_layer(10, 4) == of({0, 4, 8}));
  static_assert(every_layer(10, 4, 1) == of({1, 5, 9}));
  static_assert(every_layer(10, 1) == all_layers(10));
  static_assert(all_layers(512).size() == 512);
  static_assert(no_layers().empty());
  static_assert(complement(layer_range(1, 2), 5) == of({0, 3, 4}));
  static_assert(top_layers(profile, 3) == of({1, 3, 5}));
  static_assert(worst_layers(profile, 2) == of({0, 4}));
  CHECK(all_layers(3).size() == 3);
}

TEST_CASE("middle_layers: follows the paper's rule with real division for every depth and k") {
  for (index_t layer_count = 1; layer_count <= 80; ++layer_count) {
    for (index_t k = 1; k <= layer_count; ++k) {
      double const half = static_cast<double>(layer_count) / 2;
      auto const first = static_cast<index_t>(std::floor(half - static_cast<double>(k) / 2));
      auto const end = static_cast<index_t>(std::floor(half + static_cast<double>(k) / 2));
      REQUIRE(middle_layers(layer_count, k) == layer_range(first, end - 1));
      REQUIRE(middle_layers(layer_count, k).size() == k);
    }
  }
}

TEST_CASE("selectors: first and the complement of last partition the model") {
  for (index_t layer_count = 2; layer_count <= 20; ++layer_count) {
    for (index_t k = 1; k < layer_count; ++k) {
      CHECK(complement(last_layers(layer_count, layer_count - k), layer_count) ==
            first_layers(layer_count, k));
    }
    for (index_t n = 1; n <= layer_count; ++n) {
      layer_set together;
      for (index_t offset = 0; offset < n; ++offset) {
        CHECK((together & every_layer(layer_count, n, offset)).empty());
        together = together | every_layer(layer_count, n, offset);
      }
      CHECK(together == all_layers(layer_count));
    }
  }
}

TEST_CASE("top_layers: equal contributions go to the lower layer, in both directions") {
  CHECK(top_layers(profile, 1) == single_layer(1));
  CHECK(top_layers(profile, 2) == of({1, 3}));
  std::vector<double> const flat(5, 0.25);
  CHECK(top_layers(flat, 2) == first_layers(5, 2));
  CHECK(worst_layers(flat, 2) == first_layers(5, 2));
}

TEST_CASE("top_layers: no layer outside the top contributes more than one inside") {
  counter_generator random(4);
  for (int i = 0; i < 100; ++i) {
    std::vector<double> values(1 + random.below(40));
    index_t measured = 0;
    for (double& value : values) {
      bool const skip = random.below(4) == 0;
      // Coarse values, so that ties are common.
      value = skip ? unmeasured : static_cast<double>(random.below(8)) - 4;
      measured += skip ? 0 : 1;
    }
    for (index_t k = 1; k <= measured; ++k) {
      layer_set const top = top_layers(values, k);
      layer_set const worst = worst_layers(values, k);
      CHECK(top.size() == k);
      CHECK(worst.size() == k);
      for (std::size_t a = 0; a < values.size(); ++a) {
        if (std::isnan(values[a])) {
          CHECK_FALSE(top.contains(static_cast<index_t>(a)));
          CHECK_FALSE(worst.contains(static_cast<index_t>(a)));
          continue;
        }
        for (std::size_t b = 0; b < values.size(); ++b) {
          if (std::isnan(values[b])) continue;
          bool const a_in = top.contains(static_cast<index_t>(a));
          bool const b_in = top.contains(static_cast<index_t>(b));
          if (a_in && !b_in) CHECK((values[a] > values[b] || (values[a] == values[b] && a < b)));
        }
      }
    }
  }
}

TEST_CASE("worst_layers: is top_layers of the negated profile") {
  std::vector<double> const values{0.3, -0.2, unmeasured, 0.3, 1.5, -0.2};
  std::vector<double> negated;
  for (double const value : values) negated.push_back(-value);
  for (index_t k = 1; k <= 5; ++k) CHECK(worst_layers(values, k) == top_layers(negated, k));
}

TEST_CASE("selectors: bad layers, ranges and counts are refused with what was expected") {
  CHECK_THROWS_WITH_AS(single_layer(-1), "single_layer: layer -1 does not exist, expected 0..511",
                       selection_error);
  CHECK_THROWS_WITH_AS(single_layer(512), "single_layer: layer 512 does not exist, expected 0..511",
                       selection_error);
  CHECK_THROWS_WITH_AS(layer_range(5, 3),
                       "layer_range: the range 5-3 is reversed, expected first <= last",
                       selection_error);
  CHECK_THROWS_WITH_AS(layer_range(5, 600),
                       "layer_range: layer 600 does not exist, expected 0..511", selection_error);
  CHECK_THROWS_WITH_AS(first_layers(28, 0),
                       "first_layers: k is 0, expected 1..28, the number of layers",
                       selection_error);
  CHECK_THROWS_WITH_AS(last_layers(28, 29),
                       "last_layers: k is 29, expected 1..28, the number of layers",
                       selection_error);
  CHECK_THROWS_WITH_AS(middle_layers(28, -1),
                       "middle_layers: k is -1, expected 1..28, the number of layers",
                       selection_error);
  CHECK_THROWS_WITH_AS(every_layer(28, 0),
                       "every_layer: the step is 0, expected 1..28, the number of layers",
                       selection_error);
  CHECK_THROWS_WITH_AS(every_layer(28, 4, 28),
                       "every_layer: the offset is 28, expected a layer of 0..27", selection_error);
  CHECK_THROWS_WITH_AS(complement(single_layer(28), 28),
                       "complement: layer 28 does not exist, expected 0..27", selection_error);
  CHECK_THROWS_WITH_AS(all_layers(0), "all_layers: layer_count is 0, expected 1..512",
                       config_error);
  CHECK_THROWS_WITH_AS(middle_layers(513, 1), "middle_layers: layer_count is 513, expected 1..512",
                       config_error);
}

TEST_CASE("top_layers: profiles that cannot answer are refused") {
  CHECK_THROWS_WITH_AS(top_layers(profile, 6),
                       "top_layers: k is 6, but the profile has 5 measured layers of 6",
                       selection_error);
  CHECK_THROWS_WITH_AS(worst_layers(profile, 0), "worst_layers: k is 0, expected at least 1",
                       selection_error);
  CHECK_THROWS_WITH_AS(top_layers({}, 1),
                       "top_layers: k is 1, but the profile has 0 measured layers of 0",
                       selection_error);
  std::vector<double> const broken{0.1, infinite};
  CHECK_THROWS_WITH_AS(top_layers(broken, 1),
                       "top_layers: the profile of layer 1 is infinite, expected a finite "
                       "contribution, or NaN for a layer that was not measured",
                       selection_error);
  std::vector<double> const deep(513, 0.0);
  CHECK_THROWS_WITH_AS(top_layers(deep, 1),
                       "top_layers: the profile has 513 layers, expected at most 512",
                       selection_error);
}
