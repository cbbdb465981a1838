// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Exponentials that loops over a row can afford: branch-free, so that compilers vectorise them, and
// the same rounding on every machine that evaluates IEEE arithmetic as written.
#pragma once

#include <cstdint>

#include "lamina/config.hpp"
#include "lamina/core/detail/bits.hpp"
#include "lamina/core/scalar.hpp"

LAMINA_NAMESPACE_BEGIN

/// x with its magnitude reduced to `limit` at most; NaN becomes the limit. By bits, so that loops
/// over it vectorise where a comparison of floats would become a branch.
LAMINA_HOST_DEVICE constexpr float clamp_magnitude(float x, float limit) noexcept {
  std::uint32_t const bits = detail::bit_cast<std::uint32_t>(x);
  std::int32_t const magnitude = static_cast<std::int32_t>(bits & 0x7fffffffu);
  std::int32_t const most = detail::bit_cast<std::int32_t>(limit);
  std::int32_t const clamped = magnitude < most ? magnitude : most;
  return detail::bit_cast<float>((bits & 0x80000000u) | static_cast<std::uint32_t>(clamped));
}
LAMINA_HOST_DEVICE constexpr double clamp_magnitude(double x, double limit) noexcept {
  std::uint64_t const bits = detail::bit_cast<std::uint64_t>(x);
  std::int64_t const magnitude = static_cast<std::int64_t>(bits & 0x7fffffffffffffffu);
  std::int64_t const most = detail::bit_cast<std::int64_t>(limit);
  std::int64_t const clamped = magnitude < most ? magnitude : most;
  return detail::bit_cast<double>((bits & 0x8000000000000000u) |
                                  static_cast<std::uint64_t>(clamped));
}

/// e^x in float, relative error below 2 units in the last place.
///
/// Below -86.99 the result is 0, above 88.72 infinity; NaN stays NaN. Clamping, rounding and the
/// NaN test work on the bits: comparisons of floats become branches that keep g++ from vectorising,
/// and the usual rounding by adding and subtracting 1.5 * 2^23 is folded away under -ffast-math.
/// (There, arguments above 88.37 may overflow early; a softmax never has any.) Source: range
/// reduction of Cody and Waite 1980, chapter 6; minimax polynomial of degree 6 (relative
/// error 3.1e-9 on [-ln 2 / 2, ln 2 / 2]) fitted for this file.
LAMINA_HOST_DEVICE constexpr float fast_exp(float x) noexcept {
  float const bounded = clamp_magnitude(x, 89.0f);  // scale 0 at -89, overflow at 89
  std::uint32_t const bits = detail::bit_cast<std::uint32_t>(x);
  float const signed_half = detail::bit_cast<float>((bits & 0x80000000u) | 0x3f000000u);
  std::int32_t const power = static_cast<std::int32_t>(bounded * 1.44269504f + signed_half);
  float const n = static_cast<float>(power);
  float const r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float q = 0x1.6a23d0p-10f;
  q = q * r + 0x1.123a20p-7f;
  q = q * r + 0x1.5558f2p-5f;
  q = q * r + 0x1.555492p-3f;
  q = q * r + 0x1.fffffcp-2f;
  float const mantissa = (q * r) * r + r + 1.0f;
  // One power is kept back, so that the largest results do not pass through an infinite scale.
  std::int32_t const exponent = power + 126 > 0 ? power + 126 : 0;
  float const result = mantissa * detail::bit_cast<float>(exponent << 23) * 2.0f;
  std::int32_t const nan_bits = static_cast<std::int32_t>(bits & 0x7fffffffu) > 0x7f800000 ? -1 : 0;
  return detail::bit_cast<float>(detail::bit_cast<std::int32_t>(result) | nan_bits);
}

/// e^x in double, relative error below 2 units in the last place.
///
/// Below -708.04 the result is 0, above 709.78 infinity; NaN stays NaN. Polynomial of degree 11
/// (relative error 3.7e-18), otherwise as the float overload.
LAMINA_HOST_DEVICE constexpr double fast_exp(double x) noexcept {
  double const bounded = clamp_magnitude(x, 710.0);
  std::uint64_t const bits = detail::bit_cast<std::uint64_t>(x);
  double const signed_half =
      detail::bit_cast<double>((bits & 0x8000000000000000u) | 0x3fe0000000000000u);
  std::int32_t const power = static_cast<std::int32_t>(bounded * 1.4426950408889634 + signed_half);
  double const n = static_cast<double>(power);
  double const r = (bounded - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
  double q = 0x1.ad7f3ee016e7dp-26;
  q = q * r + 0x1.28ad9b8551757p-22;
  q = q * r + 0x1.71df25b3100a2p-19;
  q = q * r + 0x1.a01999e2633fdp-16;
  q = q * r + 0x1.a01a012a0f351p-13;
  q = q * r + 0x1.6c16c18438b08p-10;
  q = q * r + 0x1.1111111127d0ep-7;
  q = q * r + 0x1.555555555083ep-5;
  q = q * r + 0x1.55555555554f9p-3;
  q = q * r + 0x1.000000000000ap-1;
  double const mantissa = (q * r) * r + r + 1.0;
  std::int32_t const exponent = power + 1022 > 0 ? power + 1022 : 0;
  double const result =
      mantissa * detail::bit_cast<double>(static_cast<std::int64_t>(exponent) << 52) * 2.0;
  std::int64_t const nan_bits =
      static_cast<std::int64_t>(bits & 0x7fffffffffffffffu) > 0x7ff0000000000000 ? -1 : 0;
  return detail::bit_cast<double>(detail::bit_cast<std::int64_t>(result) | nan_bits);
}

/// The logarithm of e to the base that row_power takes powers of: 2 in device code in float, where
/// the special-function unit has them and fast_exp would take longer than memory does; e elsewhere.
template <real T>
LAMINA_HOST_DEVICE constexpr T row_unit() noexcept {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 4) return T(1.4426950408889634);
#endif
  return T(1);
}
/// e^(x / row_unit()), for loops over a row: fast_exp on the host; in float in device code within 2
/// units in the last place.
LAMINA_HOST_DEVICE LAMINA_INLINE float row_power(float x) noexcept {
#if defined(__CUDA_ARCH__)
  float result = 0;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return fast_exp(x);
#endif
}
LAMINA_HOST_DEVICE LAMINA_INLINE double row_power(double x) noexcept { return fast_exp(x); }
/// e^x by row_power, whose argument is rounded once more: another |x| * 2^-24.
LAMINA_HOST_DEVICE LAMINA_INLINE float row_exp(float x) noexcept {
  return row_power(x * row_unit<float>());
}
LAMINA_HOST_DEVICE LAMINA_INLINE double row_exp(double x) noexcept { return row_power(x); }

LAMINA_NAMESPACE_END
