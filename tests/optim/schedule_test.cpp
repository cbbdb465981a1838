// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/optim/schedule.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace lamina;

TEST_CASE("schedules: known rates, in constant expressions") {
  static_assert(constant_rate{.peak = 0.5}.learning_rate(99, 100) == 0.5);
  static_assert(linear_warmup{.peak = 8.0, .warmup_steps = 4}.learning_rate(0, 10) == 2.0);
  static_assert(linear_warmup{.peak = 8.0, .warmup_steps = 4}.learning_rate(3, 10) == 8.0);
  static_assert(linear_warmup{.peak = 8.0}.learning_rate(0, 10) == 8.0);
  constexpr linear_decay decay{.peak = 8.0, .warmup_steps = 2, .decay_fraction = 0.4, .floor = 4.0};
  static_assert(decay.learning_rate(0, 10) == 4.0);
  static_assert(decay.learning_rate(5, 10) == 8.0);
  static_assert(decay.learning_rate(6, 10) == 8.0);  // the line starts at the peak
  static_assert(decay.learning_rate(7, 10) == 7.0);
  static_assert(decay.learning_rate(9, 10) == 5.0);  // and would reach the floor at step 10
  constexpr cosine_decay cosine{.peak = 3.0, .warmup_steps = 2, .floor = 1.0};
  static_assert(cosine.learning_rate(0, 10) == 1.5);
  static_assert(cosine.learning_rate(2, 10) == 3.0);
  CHECK(cosine.learning_rate(6, 10) == doctest::Approx(2.0).epsilon(1e-15));
  CHECK(cosine.learning_rate(4, 10) ==
        doctest::Approx(1.0 + (1.0 + std::sqrt(0.5))).epsilon(1e-15));
}

TEST_CASE("cosine_decay: is the formula to a few units in the last place") {
  cosine_decay const schedule{.peak = 1.0, .floor = 0.0};
  double const pi = 3.14159265358979323846;
  for (index_t step = 0; step < 1000; ++step) {
    double const expected = 0.5 * (1.0 + std::cos(pi * static_cast<double>(step) / 1000.0));
    CHECK(std::fabs(schedule.learning_rate(step, 1000) - expected) < 1e-15);
  }
}

TEST_CASE("schedules: rise through warm-up, fall afterwards, stay between floor and peak") {
  auto const check = [](auto const& schedule, index_t total) {
    double before = 0;
    for (index_t step = 0; step < total; ++step) {
      double const rate = schedule.learning_rate(step, total);
      if (step < schedule.warmup_steps) {
        CHECK(rate > before);
      } else {
        CHECK(rate <= schedule.peak);
        if (step > schedule.warmup_steps) CHECK(rate <= before);
        CHECK(rate >= schedule.floor);
      }
      before = rate;
    }
  };
  for (index_t const total : {1, 2, 3, 10, 97, 1000}) {
    for (index_t const warmup : {index_t{0}, total / 4}) {
      CAPTURE(total);
      CAPTURE(warmup);
      check(linear_decay{.peak = 2e-3, .warmup_steps = warmup, .floor = 1e-4}, total);
      check(linear_decay{.peak = 2e-3, .warmup_steps = warmup, .decay_fraction = 0.7}, total);
      check(cosine_decay{.peak = 2e-3, .warmup_steps = warmup, .floor = 1e-4}, total);
    }
  }
  CHECK(linear_decay{.decay_fraction = 0}.learning_rate(9, 10) == 1e-3);
  CHECK(linear_decay{.decay_fraction = 1}.learning_rate(5, 10) == 5e-4);
  CHECK(cosine_decay{.warmup_steps = 10}.learning_rate(9, 10) == 1e-3);
}

TEST_CASE("schedules: settings and steps that make no sense are refused by name") {
  double const nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(constant_rate{}.learning_rate(10, 10),
                       "constant_rate: step is 10 of 10, expected 0 <= step < total_steps",
                       config_error);
  CHECK_THROWS_WITH_AS(constant_rate{}.learning_rate(-1, 10),
                       "constant_rate: step is -1 of 10, expected 0 <= step < total_steps",
                       config_error);
  CHECK_THROWS_WITH_AS(cosine_decay{}.learning_rate(0, 0),
                       "cosine_decay: step is 0 of 0, expected 0 <= step < total_steps",
                       config_error);
  CHECK_THROWS_WITH_AS(constant_rate{.peak = nan}.learning_rate(0, 10),
                       "constant_rate: peak is nan, expected finite and >= 0", config_error);
  CHECK_THROWS_WITH_AS(linear_warmup{.peak = -1}.learning_rate(0, 10),
                       "linear_warmup: peak is -1, expected finite and >= 0", config_error);
  CHECK_THROWS_WITH_AS((linear_warmup{.peak = 1, .warmup_steps = 11}.learning_rate(0, 10)),
                       "linear_warmup: warmup_steps is 11, expected 0..10, the number of steps",
                       config_error);
  CHECK_THROWS_WITH_AS((cosine_decay{.peak = 1, .floor = 2}.learning_rate(0, 10)),
                       "cosine_decay: floor is 2, expected 0 <= floor <= peak, which is 1",
                       config_error);
  CHECK_THROWS_WITH_AS(linear_decay{.decay_fraction = 1.5}.learning_rate(0, 10),
                       "linear_decay: decay_fraction is 1.5, expected 0..1", config_error);
  CHECK_THROWS_WITH_AS(
      (linear_decay{.warmup_steps = 6, .decay_fraction = 0.5}.learning_rate(0, 10)),
      "linear_decay: 6 steps of warm-up and 5 of decay do not fit into 10", config_error);
}
