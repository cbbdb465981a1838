// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/math.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lamina/core/scalar.hpp"

using lamina::fast_exp;

namespace {
// Largest error over [low, high] in units of the last place of T.
template <class T>
double worst_ulp(double low, double high, int points) {
  double worst = 0;
  for (int i = 0; i <= points; ++i) {
    T const x = static_cast<T>(low + (high - low) * i / points);
    long double const exact = std::exp(static_cast<long double>(x));
    T const value = fast_exp(x);
    T const rounded = static_cast<T>(exact);
    double const ulp =
        static_cast<double>(std::nextafter(rounded, std::numeric_limits<T>::infinity()) - rounded);
    worst = std::max(worst, std::abs(static_cast<double>(value - exact)) / ulp);
  }
  return worst;
}
}  // namespace

TEST_CASE("fast_exp: float within 2 units in the last place over its whole range") {
  CHECK(worst_ulp<float>(-86.9, 88.7, 400001) < 2.0);
  CHECK(worst_ulp<float>(-1, 1, 100001) < 2.0);
}

TEST_CASE("fast_exp: double within 2 units in the last place over its whole range") {
  CHECK(worst_ulp<double>(-708, 709.7, 400001) < 2.0);
  CHECK(worst_ulp<double>(-1, 1, 100001) < 2.0);
}

TEST_CASE_TEMPLATE("fast_exp: exact at 0, floor, ceiling and NaN", T, float, double) {
  CHECK(fast_exp(T(0)) == T(1));
  CHECK(fast_exp(-std::numeric_limits<T>::infinity()) == T(0));
  CHECK(fast_exp(std::numeric_limits<T>::lowest()) == T(0));
  CHECK(fast_exp(std::numeric_limits<T>::infinity()) == std::numeric_limits<T>::infinity());
  CHECK(fast_exp(std::numeric_limits<T>::max()) == std::numeric_limits<T>::infinity());
  CHECK(lamina::is_nan(fast_exp(std::numeric_limits<T>::quiet_NaN())));
}

TEST_CASE("fast_exp: usable in constant expressions") { static_assert(fast_exp(0.0f) == 1.0f); }
