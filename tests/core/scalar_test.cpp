// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/scalar.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>

using lamina::bf16;
using lamina::f16;

namespace {

// The value of a half by its definition, one case at a time.
double half_value(std::uint16_t bits) {
  int const exponent = (bits >> 10) & 31;
  int const mantissa = bits & 1023;
  double const sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) {
    return mantissa ? std::numeric_limits<double>::quiet_NaN()
                    : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

std::uint32_t bits_of(float x) {
  std::uint32_t word;
  std::memcpy(&word, &x, sizeof word);
  return word;
}

}  // namespace

TEST_CASE("f16: every one of the 65536 patterns reads as its definition says and writes back") {
  int wrong = 0;
  for (std::uint32_t pattern = 0; pattern < 65536; ++pattern) {
    f16 half;
    half.bits = static_cast<std::uint16_t>(pattern);
    float const value = half;
    double const expected = half_value(half.bits);
    if (std::isnan(expected)) {
      wrong += std::isnan(value) && std::isnan(static_cast<float>(f16(value))) ? 0 : 1;
    } else {
      wrong += static_cast<double>(value) == expected && f16(value).bits == half.bits ? 0 : 1;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("f16: rounds to the nearest half, ties to even, between every pair of neighbours") {
  int wrong = 0;
  for (std::uint16_t pattern = 0; pattern < 0x7bff; ++pattern) {
    double const low = half_value(pattern);
    double const high = half_value(static_cast<std::uint16_t>(pattern + 1));
    float const middle = static_cast<float>((low + high) / 2);  // exact in float
    std::uint16_t const even = pattern % 2 == 0 ? pattern : static_cast<std::uint16_t>(pattern + 1);
    wrong += f16(middle).bits == even ? 0 : 1;
    wrong += f16(std::nextafter(middle, 0.0f)).bits == pattern ? 0 : 1;
    wrong += f16(std::nextafter(middle, 1e9f)).bits == pattern + 1 ? 0 : 1;
    wrong += f16(-middle).bits == (even | 0x8000) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("f16: what rounds past 65504 is infinite") {
  CHECK(f16(65504.0f).bits == 0x7bff);
  CHECK(f16(65519.996f).bits == 0x7bff);
  CHECK(f16(65520.0f).bits == 0x7c00);
  CHECK(f16(-1e30f).bits == 0xfc00);
  CHECK(f16(std::numeric_limits<float>::infinity()).bits == 0x7c00);
}

TEST_CASE("bf16: every pattern survives the trip through float") {
  int wrong = 0;
  for (std::uint32_t pattern = 0; pattern < 65536; ++pattern) {
    bf16 x;
    x.bits = static_cast<std::uint16_t>(pattern);
    float const value = x;
    wrong += bits_of(value) == pattern << 16 ? 0 : 1;
    if (std::isnan(value)) {
      wrong += std::isnan(static_cast<float>(bf16(value))) ? 0 : 1;
    } else {
      wrong += bf16(value).bits == pattern ? 0 : 1;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("bf16: rounds to nearest, ties to even") {
  CHECK(bf16(1.00390625f).bits == 0x3f80);    // halfway between 1 and 1 + 2^-7: down to even
  CHECK(bf16(1.01171875f).bits == 0x3f82);    // halfway above the odd neighbour: up to even
  CHECK(bf16(1.0039063692f).bits == 0x3f81);  // just above halfway
  CHECK(bf16(3.4028235e38f).bits == 0x7f80);  // rounds past the largest bf16
}

TEST_CASE_TEMPLATE("is_finite and is_nan see what a value is, also under -ffast-math", T, float,
                   double) {
  using limits = std::numeric_limits<T>;
  for (T value : {T(0), T(-1), limits::max(), limits::denorm_min()}) {
    CHECK(lamina::is_finite(value));
    CHECK_FALSE(lamina::is_nan(value));
  }
  for (T value : {limits::infinity(), -limits::infinity()}) {
    CHECK_FALSE(lamina::is_finite(value));
    CHECK_FALSE(lamina::is_nan(value));
  }
  CHECK_FALSE(lamina::is_finite(limits::quiet_NaN()));
  CHECK(lamina::is_nan(limits::quiet_NaN()));
}

TEST_CASE("storage scalars compute in float, double in double") {
  static_assert(std::is_same_v<lamina::compute_t<bf16>, float>);
  static_assert(std::is_same_v<lamina::compute_t<f16>, float>);
  static_assert(std::is_same_v<lamina::compute_t<double>, double>);
  static_assert(!lamina::real<bf16> && lamina::storage_scalar<bf16>);
}
