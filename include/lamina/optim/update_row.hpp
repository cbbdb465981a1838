// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The unit of work of an optimizer: a few thousand contiguous elements of one parameter, and how
// its weights pass between storage and the precision updates are computed in.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include "lamina/core/detail/bits.hpp"
#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"

LAMINA_NAMESPACE_BEGIN

/// Most elements of one row: enough to outweigh handing the row to a thread, few enough that one
/// large tensor occupies every thread. A row never spans two parameters.
inline constexpr index_t elements_per_row = 4096;

/// Whether two values have the same bits: tells 0 from -0, and finds a NaN equal to itself.
template <storage_scalar T>
LAMINA_HOST_DEVICE constexpr bool same_bits(T a, T b) noexcept {
  using word = std::conditional_t<sizeof(T) == 8, std::uint64_t,
                                  std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>>;
  return detail::bit_cast<word>(a) == detail::bit_cast<word>(b);
}

/// A stored value in the precision S.
template <real S, storage_scalar T>
LAMINA_HOST_DEVICE constexpr S widened(T value) noexcept {
  return static_cast<S>(static_cast<compute_t<T>>(value));
}

/// A value rounded to storage.
template <storage_scalar T, real S>
LAMINA_HOST_DEVICE constexpr T stored(S value) noexcept {
  return static_cast<T>(static_cast<compute_t<T>>(value));
}

/// `size` contiguous elements of one parameter, with what an update rule remembers about them.
///
/// T  type of weight and gradient
/// S  type of the state and of the arithmetic; at least as wide as T
///
/// Where S is wider than T, `master` holds the weight in S, so that steps below the resolution of T
/// add up instead of being rounded away. A master counts only while it still rounds to the stored
/// weight: a host that writes the weight (restores a checkpoint, say) takes over without telling
/// the optimizer.
template <storage_scalar T, real S>
struct update_row {
  T* weights = nullptr;
  T const* gradients = nullptr;
  S* first = nullptr;   // first moment or momentum; null if the rule keeps none
  S* second = nullptr;  // second moment; null if the rule keeps none
  S* master = nullptr;  // null if S is T
  index_t size = 0;
  index_t parameter = 0;

  static constexpr bool has_master = !std::same_as<T, S>;

  LAMINA_HOST_DEVICE constexpr S weight(index_t i) const noexcept {
    if constexpr (has_master) {
      return same_bits(stored<T>(master[i]), weights[i]) ? master[i] : widened<S>(weights[i]);
    } else {
      return weights[i];
    }
  }
  LAMINA_HOST_DEVICE constexpr void set_weight(index_t i, S value) const noexcept {
    if constexpr (has_master) master[i] = value;
    weights[i] = stored<T>(value);
  }
  LAMINA_HOST_DEVICE constexpr S gradient(index_t i) const noexcept {
    return widened<S>(gradients[i]);
  }
};

LAMINA_NAMESPACE_END
