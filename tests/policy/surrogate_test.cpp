// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/surrogate.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using lamina::clip_side;
using lamina::ppo_clip;

TEST_CASE("ppo_clip: the four corners, by hand") {
  ppo_clip const clip{.clip_low = 0.2, .clip_high = 0.3};
  auto const high_good = clip.term(std::log(1.5), 2.0);  // A > 0, r above the bound: cut
  CHECK(high_good.value == doctest::Approx(-2.6));
  CHECK(high_good.slope == 0);
  CHECK(high_good.clipped == clip_side::high);
  auto const low_good = clip.term(std::log(0.5), 2.0);  // A > 0, r below: the way back is open
  CHECK(low_good.value == doctest::Approx(-1.0));
  CHECK(low_good.slope == doctest::Approx(-1.0));
  CHECK(low_good.clipped == clip_side::none);
  auto const high_bad = clip.term(std::log(1.5), -2.0);
  CHECK(high_bad.value == doctest::Approx(3.0));
  CHECK(high_bad.slope == doctest::Approx(3.0));
  auto const low_bad = clip.term(std::log(0.5), -2.0);  // A < 0, r below: cut
  CHECK(low_bad.value == doctest::Approx(1.6));
  CHECK(low_bad.slope == 0);
  CHECK(low_bad.clipped == clip_side::low);
}

TEST_CASE("ppo_clip: a ratio exactly on a bound is not clipped") {
  // exp(0) is exactly 1, so bounds of width 0 put the ratio on both of them.
  ppo_clip const clip{.clip_low = 0, .clip_high = 0};
  CHECK(clip.term(0.0, 1.5).slope == -1.5);
  CHECK(clip.term(0.0, -1.5).slope == 1.5);
  CHECK(clip.term(1e-9, 1.5).slope == 0);
  CHECK(clip.term(-1e-9, -1.5).slope == 0);
}

TEST_CASE("ppo_clip: the slope is the derivative of the value away from the bounds") {
  ppo_clip const clip{.clip_low = 0.2, .clip_high = 0.28};
  double const h = 1e-6;
  for (double d : {-0.9, -0.3, -0.1, 0.0, 0.1, 0.2, 0.3, 0.9}) {
    for (double a : {-1.7, 0.4}) {
      double const slope = (clip.term(d + h, a).value - clip.term(d - h, a).value) / (2 * h);
      CHECK(clip.term(d, a).slope == doctest::Approx(slope).epsilon(1e-6));
    }
  }
}

TEST_CASE("ppo_clip: an advantage of 0 is 0, whatever the ratio") {
  for (double d : {-1e300, -1.0, 0.0, 800.0, std::numeric_limits<double>::infinity()}) {
    CHECK(ppo_clip{}.term(d, 0.0).value == 0);
    CHECK(ppo_clip{}.term(d, 0.0).slope == 0);
  }
}

TEST_CASE("ppo_clip: huge log ratios give finite values and no gradient") {
  for (double d : {-1e6, -20.1, 20.1, 1e6}) {
    for (double a : {-1.0, 1.0}) {
      auto const term = ppo_clip{}.term(d, a);
      CHECK(std::isfinite(term.value));
      CHECK(term.slope == 0);
    }
  }
}

TEST_CASE("ppo_clip: bounds that make no sense are refused") {
  CHECK_THROWS_WITH_AS(ppo_clip{.clip_low = -0.1}.check(),
                       "ppo_clip: clip_low is -0.1, expected 0..1", lamina::config_error);
  CHECK_THROWS_WITH_AS((ppo_clip{.clip_low = 0.2, .clip_high = NAN}.check()),
                       "ppo_clip: clip_high is nan, expected a finite value >= 0",
                       lamina::config_error);
  CHECK_THROWS_AS(ppo_clip{.clip_low = 1.5}.check(), lamina::config_error);
  CHECK_NOTHROW(ppo_clip{}.check());
}
