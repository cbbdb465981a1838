// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/layer_rates.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "lamina/layers/selector.hpp"

using namespace lamina;

TEST_CASE("layer_rates: one everywhere, boosted where asked, in constant expressions") {
  constexpr layer_rates plain;
  static_assert(plain(0) == 1 && plain(511) == 1 && plain(outside_layers) == 1);
  constexpr layer_rates boosted = boost(layer_range(3, 4), 2.0);
  static_assert(boosted(2) == 1 && boosted(3) == 2 && boosted(4) == 2 && boosted(5) == 1);
  static_assert(boosted(outside_layers) == 1);
  constexpr layer_rates outer = boost_outside(0.5);
  static_assert(outer(0) == 1 && outer(outside_layers) == 0.5);
  constexpr layer_rates both = boosted * boost(layer_range(4, 5), 0.25) * outer;
  static_assert(both(3) == 2 && both(4) == 0.5 && both(5) == 0.25 && both(outside_layers) == 0.5);
  CHECK(both(6) == 1);
}

TEST_CASE("layer_rates: composition commutes and has the plain rates as its identity") {
  layer_rates const a = boost(every_layer(28, 3), 2.0), b = boost(middle_layers(28, 5), 0.125);
  CHECK(a * b == b * a);
  CHECK(a * layer_rates{} == a);
  CHECK_FALSE(a == b);
  CHECK(boost(no_layers(), 3.0) == layer_rates{});
  CHECK(boost(single_layer(3), 0.0)(3) == 0);
}

TEST_CASE("layer_rates: a negative or non-finite multiplier is refused and changes nothing") {
  layer_rates rates;
  CHECK_THROWS_WITH_AS(rates.scale(single_layer(1), -2.0),
                       "layer_rates::scale: multiplier is -2, expected finite and >= 0",
                       config_error);
  CHECK_THROWS_WITH_AS(rates.scale_outside(std::numeric_limits<double>::infinity()),
                       "layer_rates::scale_outside: multiplier is inf, expected finite and >= 0",
                       config_error);
  CHECK_THROWS_AS(boost(single_layer(1), std::numeric_limits<double>::quiet_NaN()), config_error);
  CHECK_THROWS_AS(boost_outside(-0.5), config_error);
  CHECK(rates == layer_rates{});

  rates.scale(single_layer(2), 1e200);
  layer_rates const before = rates;
  CHECK_THROWS_WITH_AS(rates.scale(layer_range(1, 2), 1e200),
                       "layer_rates: the rate of layer 2 is 1e+200, times 1e+200 it is not finite",
                       config_error);
  CHECK(rates == before);
  CHECK_THROWS_AS(rates * rates, config_error);
}

TEST_CASE("layer_rates: an index that is no layer is refused") {
  CHECK_THROWS_WITH_AS(layer_rates{}(512),
                       "layer_rates: layer is 512, expected 0..511, or outside_layers (-1)",
                       selection_error);
  CHECK_THROWS_AS(layer_rates{}(-2), selection_error);
}
