// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Formulas over one number or over a vector register of them: the same text computes a token in
// device code and a register full of tokens on the host.
#pragma once

#include <cstring>

#include "lamina/core/scalar.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// The widest vector of the instruction set compiled for. Vectors wider than that would change the
// calling convention, and nvcc's front end has none.
#if defined(__GNUC__) && !defined(__CUDACC__)
#if defined(__AVX512F__)
inline constexpr int native_bytes = 64;
#elif defined(__AVX__)
inline constexpr int native_bytes = 32;
#else
inline constexpr int native_bytes = 16;
#endif
template <class T>
struct native_vector {
  typedef T type __attribute__((vector_size(native_bytes)));
};
template <class T, int Count>
struct native_vector_of {
  typedef T type __attribute__((vector_size(Count * sizeof(T))));
};
template <class T>
struct native {
  static constexpr int width = native_bytes / static_cast<int>(sizeof(T));
  using integer = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  using value = typename native_vector<T>::type;
  using mask = typename native_vector<integer>::type;

  static value broadcast(T x) { return x - value{}; }
  static mask less(value a, value b) { return (mask)(a < b); }
  static mask equal(value a, value b) { return (mask)(a == b); }
  static value choose(mask m, value a, value b) {
    if constexpr (native_bytes == 16) {  // no blend instruction in the baseline
      return (value)(((mask)a & m) | ((mask)b & ~m));
    } else {
      return m ? a : b;
    }
  }
  static mask finite(value a) {
    if constexpr (sizeof(T) == 4) {
      return (mask)(((mask)a & 0x7f800000) != 0x7f800000);
    } else {
      return (mask)(((mask)a & 0x7ff0000000000000LL) != 0x7ff0000000000000LL);
    }
  }
  static bool all(mask m) {
#if defined(__AVX__) && !defined(__AVX512F__)
    return __builtin_ia32_movmskps256((typename native_vector<float>::type)m) == 0xff;
#else
    typename native_vector<std::int64_t>::type const words =
        (typename native_vector<std::int64_t>::type)m;
    std::int64_t both = words[0];
    for (int i = 1; i < native_bytes / 8; ++i) both &= words[i];
    return both == -1;
#endif
  }
  static value nearest(value x) {
    using int32s = typename native_vector_of<std::int32_t, width>::type;
    value const signed_half =
        (value)(((mask)x & (mask)broadcast(T(-0.0))) | (mask)broadcast(T(0.5)));
    return __builtin_convertvector(__builtin_convertvector(x + signed_half, int32s), value);
  }
  static value power_of_two(value n) {
    using int32s = typename native_vector_of<std::int32_t, width>::type;
    int32s const power = __builtin_convertvector(n, int32s);
    if constexpr (sizeof(T) == 4) {
      return (value)((power + 127) << 23);
    } else {
      return (value)(__builtin_convertvector(power + 1023, mask) << 52);
    }
  }
  template <class Other>
  static value load(Other const* from) {
    typename native_vector_of<Other, width>::type loaded;
    std::memcpy(&loaded, from, sizeof loaded);
    return __builtin_convertvector(loaded, value);
  }
  template <class Other>
  static void store(Other* to, value x) {
    auto const converted =
        __builtin_convertvector(x, typename native_vector_of<Other, width>::type);
    std::memcpy(to, &converted, sizeof converted);
  }
};
#else
template <class T>
struct native {
  static constexpr int width = 1;
  using integer = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  using value = T;
  using mask = integer;

  LAMINA_HOST_DEVICE static value broadcast(T x) { return x; }
  LAMINA_HOST_DEVICE static mask less(value a, value b) { return a < b ? integer(-1) : integer(0); }
  LAMINA_HOST_DEVICE static mask equal(value a, value b) {
    return a == b ? integer(-1) : integer(0);
  }
  LAMINA_HOST_DEVICE static value choose(mask m, value a, value b) { return m != 0 ? a : b; }
  LAMINA_HOST_DEVICE static mask finite(value a) { return is_finite(a) ? integer(-1) : integer(0); }
  LAMINA_HOST_DEVICE static bool all(mask m) { return m != 0; }
  LAMINA_HOST_DEVICE static value nearest(value x) {
    return static_cast<T>(static_cast<std::int32_t>(x + (x < 0 ? T(-0.5) : T(0.5))));
  }
  LAMINA_HOST_DEVICE static value power_of_two(value n) {
    if constexpr (sizeof(T) == 4) {
      return bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
    } else {
      return bit_cast<double>((static_cast<std::int64_t>(n) + 1023) << 52);
    }
  }
  template <class Other>
  LAMINA_HOST_DEVICE static value load(Other const* from) {
    return static_cast<T>(*from);
  }
  template <class Other>
  LAMINA_HOST_DEVICE static void store(Other* to, value x) {
    *to = static_cast<Other>(x);
  }
};
#endif

}  // namespace detail

/// One truth value a lane of a pack.
template <real T>
struct pack_mask {
  typename detail::native<T>::mask value;

  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack_mask operator&(pack_mask a, pack_mask b) {
    return {a.value & b.value};
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack_mask operator|(pack_mask a, pack_mask b) {
    return {a.value | b.value};
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack_mask operator!(pack_mask a) { return {~a.value}; }
};

/// A mask known at compile time: every lane is set. Formulas written over a mask cost nothing for
/// it.
struct every_lane {
  template <class M>
  LAMINA_HOST_DEVICE LAMINA_INLINE friend M operator&(every_lane, M mask) {
    return mask;
  }
};

template <real T>
struct pack;

/// Counts of set truth values, lane by lane.
template <class V>
struct lane_count {
  index_t value = 0;

  LAMINA_HOST_DEVICE LAMINA_INLINE void add(bool flag) { value += flag ? 1 : 0; }
  LAMINA_HOST_DEVICE LAMINA_INLINE void add(every_lane) { ++value; }
  LAMINA_HOST_DEVICE LAMINA_INLINE index_t total() const { return value; }
};
template <real T>
struct lane_count<pack<T>> {
  typename detail::native<T>::mask value{};

  LAMINA_HOST_DEVICE LAMINA_INLINE void add(pack_mask<T> flags) { value = value - flags.value; }
  LAMINA_HOST_DEVICE LAMINA_INLINE void add(every_lane) { value = value + 1; }
  LAMINA_HOST_DEVICE LAMINA_INLINE index_t total() const {
    typename detail::native<T>::integer lane[detail::native<T>::width];
    std::memcpy(lane, &value, sizeof lane);
    index_t sum = 0;
    for (auto count : lane) sum += count;
    return sum;
  }
};

/// As many numbers as one vector register holds. Arithmetic is lane by lane.
template <real T>
struct pack {
  using native = detail::native<T>;
  static constexpr index_t lanes = native::width;
  typename native::value value;

  pack() = default;
  LAMINA_HOST_DEVICE LAMINA_INLINE explicit pack(typename native::value from) requires(
      native::width > 1)
      : value(from) {}
  /// All lanes equal.
  LAMINA_HOST_DEVICE LAMINA_INLINE explicit pack(double x)
      : value(native::broadcast(static_cast<T>(x))) {}

  /// `lanes` consecutive numbers, converted where their type differs.
  template <class Other>
  LAMINA_HOST_DEVICE LAMINA_INLINE static pack load(Other const* from) {
    return pack(native::load(from));
  }
  template <class Other>
  LAMINA_HOST_DEVICE LAMINA_INLINE void store(Other* to) const {
    native::store(to, value);
  }

  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack operator+(pack a, pack b) {
    return pack(a.value + b.value);
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack operator-(pack a, pack b) {
    return pack(a.value - b.value);
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack operator*(pack a, pack b) {
    return pack(a.value * b.value);
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack operator/(pack a, pack b) {
    return pack(a.value / b.value);
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack operator-(pack a) { return pack(-a.value); }
  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack_mask<T> operator<(pack a, pack b) {
    return {native::less(a.value, b.value)};
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack_mask<T> operator>(pack a, pack b) { return b < a; }
  LAMINA_HOST_DEVICE LAMINA_INLINE friend pack_mask<T> operator==(pack a, pack b) {
    return {native::equal(a.value, b.value)};
  }
};

namespace detail {
template <class V>
struct pack_traits {
  using scalar = V;
  using mask = bool;
};
template <class T>
struct pack_traits<pack<T>> {
  using scalar = T;
  using mask = pack_mask<T>;
};
}  // namespace detail

/// The number type of a formula's argument: itself, or that of a pack.
template <class V>
using scalar_of_t = typename detail::pack_traits<V>::scalar;
/// What comparing two V gives: bool, or one truth value a lane.
template <class V>
using mask_of_t = typename detail::pack_traits<V>::mask;

/// a where the mask is set, b elsewhere; both are computed, neither propagates into the other.
LAMINA_HOST_DEVICE LAMINA_INLINE float select(bool mask, float a, float b) { return mask ? a : b; }
LAMINA_HOST_DEVICE LAMINA_INLINE double select(bool mask, double a, double b) {
  return mask ? a : b;
}
template <real T>
LAMINA_HOST_DEVICE LAMINA_INLINE pack<T> select(pack_mask<T> mask, pack<T> a, pack<T> b) {
  return pack<T>(detail::native<T>::choose(mask.value, a.value, b.value));
}

template <class V>
LAMINA_HOST_DEVICE LAMINA_INLINE V select(every_lane, V a, V /*b*/) {
  return a;
}

/// Whether every lane is set.
LAMINA_HOST_DEVICE LAMINA_INLINE bool all(bool mask) { return mask; }
template <real T>
LAMINA_HOST_DEVICE LAMINA_INLINE bool all(pack_mask<T> mask) {
  return detail::native<T>::all(mask.value);
}

/// Lanes that are neither infinite nor NaN, by their bits.
template <real T>
LAMINA_HOST_DEVICE LAMINA_INLINE pack_mask<T> is_finite(pack<T> x) {
  return {detail::native<T>::finite(x.value)};
}

namespace detail {

template <real T>
LAMINA_HOST_DEVICE LAMINA_INLINE T nearest(T x) {
  return static_cast<T>(static_cast<std::int32_t>(x + (x < 0 ? T(-0.5) : T(0.5))));
}
template <real T>
LAMINA_HOST_DEVICE LAMINA_INLINE pack<T> nearest(pack<T> x) {
  return pack<T>(native<T>::nearest(x.value));
}
LAMINA_HOST_DEVICE LAMINA_INLINE float power_of_two(float n) {
  return bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
}
LAMINA_HOST_DEVICE LAMINA_INLINE double power_of_two(double n) {
  return bit_cast<double>((static_cast<std::int64_t>(n) + 1023) << 52);
}
template <real T>
LAMINA_HOST_DEVICE LAMINA_INLINE pack<T> power_of_two(pack<T> n) {
  return pack<T>(native<T>::power_of_two(n.value));
}

}  // namespace detail

/// x cut to [low, high]; NaN becomes high.
template <class V>
LAMINA_HOST_DEVICE LAMINA_INLINE V clamp(V x, double low, double high) {
  V const below = select(x < V(high), x, V(high));
  return select(below > V(low), below, V(low));
}
template <class V>
LAMINA_HOST_DEVICE LAMINA_INLINE V absolute(V x) {
  return select(x < V(0), -x, x);
}

namespace detail {

// e^x = scale + scale * fraction, so that e^x and e^x - 1 are both exact to rounding.
template <class V>
struct exp_parts {
  V fraction{};
  V scale{};
};

// x = n ln 2 + r gives fraction = e^r - 1 and scale = 2^n, for |x| <= 80; polynomials as in
// fast_exp.
template <class V>
LAMINA_HOST_DEVICE LAMINA_INLINE exp_parts<V> split_exp(V bounded) {
  V const n = nearest(bounded * V(1.4426950408889634));
  exp_parts<V> parts;
  if constexpr (sizeof(scalar_of_t<V>) == 4) {
    V const r = (bounded - n * V(0.693359375)) + n * V(2.12194440e-4);
    V q(0x1.6a23d0p-10);
    q = q * r + V(0x1.123a20p-7);
    q = q * r + V(0x1.5558f2p-5);
    q = q * r + V(0x1.555492p-3);
    q = q * r + V(0x1.fffffcp-2);
    parts.fraction = (q * r) * r + r;
  } else {
    V const r = (bounded - n * V(0x1.62e42fee00000p-1)) - n * V(0x1.a39ef35793c76p-33);
    V q(0x1.ad7f3ee016e7dp-26);
    q = q * r + V(0x1.28ad9b8551757p-22);
    q = q * r + V(0x1.71df25b3100a2p-19);
    q = q * r + V(0x1.a01999e2633fdp-16);
    q = q * r + V(0x1.a01a012a0f351p-13);
    q = q * r + V(0x1.6c16c18438b08p-10);
    q = q * r + V(0x1.1111111127d0ep-7);
    q = q * r + V(0x1.555555555083ep-5);
    q = q * r + V(0x1.55555555554f9p-3);
    q = q * r + V(0x1.000000000000ap-1);
    parts.fraction = (q * r) * r + r;
  }
  parts.scale = power_of_two(n);
  return parts;
}

// e^x - 1 for any x <= high, cut there; below -80 it is -1 to rounding.
template <class V>
LAMINA_HOST_DEVICE LAMINA_INLINE V expm1_below(V x, double high) {
  exp_parts<V> const e = split_exp(clamp(x, -80.0, high));
  return e.scale * e.fraction + (e.scale - V(1));
}

}  // namespace detail

/// e^x with x cut to [-limit, limit], limit <= 80; relative error below 3 units in the last place.
/// NaN counts as limit.
template <class V>
LAMINA_HOST_DEVICE LAMINA_INLINE V bounded_exp(V x, double limit = 80.0) {
  detail::exp_parts<V> const e = detail::split_exp(clamp(x, -limit, limit));
  return e.scale * e.fraction + e.scale;
}

/// e^x - 1 with x cut to [-limit, limit], limit <= 80; relative error below 3 units in the last
/// place, also near 0. NaN counts as limit.
template <class V>
LAMINA_HOST_DEVICE LAMINA_INLINE V bounded_expm1(V x, double limit = 80.0) {
  detail::exp_parts<V> const e = detail::split_exp(clamp(x, -limit, limit));
  return e.scale * e.fraction + (e.scale - V(1));
}

LAMINA_NAMESPACE_END
