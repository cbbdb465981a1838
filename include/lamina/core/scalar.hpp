// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Scalar types: what lamina computes in, what it can store, and what it accumulates in.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include "lamina/config.hpp"
#include "lamina/core/detail/bits.hpp"

LAMINA_NAMESPACE_BEGIN

/// bfloat16 in memory: the upper half of an IEEE float. Storage only; arithmetic is done in float.
struct bf16 {
  std::uint16_t bits;

  constexpr bf16() = default;
  /// Rounds to nearest, ties to even; a NaN stays a quiet NaN.
  LAMINA_HOST_DEVICE constexpr explicit bf16(float value) noexcept : bits(0) {
#if defined(__CUDA_ARCH__)
    if (!__builtin_is_constant_evaluated()) {
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
      return;
    }
#endif
    std::uint32_t const word = detail::bit_cast<std::uint32_t>(value);
    if ((word & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<std::uint16_t>((word >> 16) | 0x0040u);
    } else {
      bits = static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
    }
  }
  LAMINA_HOST_DEVICE constexpr operator float() const noexcept {
    return detail::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

/// IEEE half in memory: 1 sign, 5 exponent, 10 mantissa bits. Storage only.
struct f16 {
  std::uint16_t bits;

  constexpr f16() = default;
  /// Rounds to nearest, ties to even; overflow becomes infinity, a NaN stays a quiet NaN.
  LAMINA_HOST_DEVICE constexpr explicit f16(float value) noexcept : bits(0) {
#if defined(__CUDA_ARCH__)
    if (!__builtin_is_constant_evaluated()) {
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
      return;
    }
#endif
    // All cases are computed and one is chosen by masks, made of sign bits where a comparison
    // would become a branch, so that loops over halves vectorise.
    std::uint32_t const word = detail::bit_cast<std::uint32_t>(value);
    std::int32_t const magnitude = static_cast<std::int32_t>(word & 0x7fffffffu);
    std::int32_t const normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13;
    // Adding 0.5 lines the bits of a subnormal half up with the last bits of a float and rounds.
    std::int32_t const tiny = (magnitude - 0x38800000) >> 31;
    std::int32_t const subnormal =
        detail::bit_cast<std::int32_t>(detail::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
    std::int32_t const large = (0x477fefff - magnitude) >> 31;  // rounds past 65504
    std::int32_t const nan = (0x7f800000 - magnitude) >> 31;
    std::int32_t const finite = (subnormal & tiny) | (normal & ~tiny);
    std::int32_t const special = 0x7c00 | ((0x200 | ((magnitude >> 13) & 0x3ff)) & nan);
    std::int32_t const result = (finite & ~large) | (special & large);
    bits =
        static_cast<std::uint16_t>(((word >> 16) & 0x8000u) | static_cast<std::uint32_t>(result));
  }
  LAMINA_HOST_DEVICE constexpr operator float() const noexcept {
#if defined(__CUDA_ARCH__)
    if (!__builtin_is_constant_evaluated()) {
      float value = 0;
      asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
      return value;
    }
#endif
    std::uint32_t const sign = (bits & 0x8000u) << 16;
    std::uint32_t const magnitude = bits & 0x7fffu;
    // The half's exponent read as a float's is 112 too small; the product is exact.
    std::uint32_t const scaled =
        detail::bit_cast<std::uint32_t>(detail::bit_cast<float>(magnitude << 13) * 0x1p112f);
    std::uint32_t const special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
    return detail::bit_cast<float>(sign | scaled | special);
  }
};

/// A type whose values can be copied. std::copy_constructible asks for more than a part needs, and
/// costs more compile time than the parts.
template <class T>
concept copyable_value = requires(T const& value) {
  T(value);
};

/// A type lamina computes in: float or double.
template <class T>
concept real = std::same_as<T, float> || std::same_as<T, double>;

/// A type lamina reads and writes: float, double, bf16, f16.
template <class T>
concept storage_scalar = real<T> || std::same_as<T, bf16> || std::same_as<T, f16>;

namespace detail {
template <class T>
struct compute_of {
  using type = float;
};
template <>
struct compute_of<double> {
  using type = double;
};
}  // namespace detail

/// The type arithmetic on T is done in: double for double, float for everything narrower.
template <storage_scalar T>
using compute_t = typename detail::compute_of<T>::type;

/// The type sums over T are kept in: double, so that a sum does not depend on how long it is.
template <storage_scalar T>
struct accumulator {
  using type = double;
};
template <storage_scalar T>
using accumulator_t = typename accumulator<T>::type;

/// Whether `value` is neither infinite nor NaN, by its bits: holds under -ffast-math, where
/// std::isfinite is a constant.
LAMINA_HOST_DEVICE constexpr bool is_finite(float value) noexcept {
  return (detail::bit_cast<std::uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
}
LAMINA_HOST_DEVICE constexpr bool is_finite(double value) noexcept {
  return (detail::bit_cast<std::uint64_t>(value) & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}
/// Whether `value` is NaN, by its bits.
LAMINA_HOST_DEVICE constexpr bool is_nan(float value) noexcept {
  return (detail::bit_cast<std::uint32_t>(value) & 0x7fffffffu) > 0x7f800000u;
}
LAMINA_HOST_DEVICE constexpr bool is_nan(double value) noexcept {
  return (detail::bit_cast<std::uint64_t>(value) & 0x7fffffffffffffffu) > 0x7ff0000000000000u;
}

LAMINA_NAMESPACE_END
