// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The unit of work of an optimizer: a few thousand contiguous elements of one parameter, and how
// its weights pass between storage and the precision updates are computed in.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include "lamina/core/detail/bits.hpp"
#include "lamina/core/lanes.hpp"
#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"

LAMINA_NAMESPACE_BEGIN

/// Most elements of one row: enough to outweigh handing the row to a thread, few enough that one
/// large tensor occupies every thread. A row never spans two parameters.
inline constexpr index_t elements_per_row = 4096;

namespace detail {
// The bits of a value as a number.
template <storage_scalar T>
LAMINA_HOST_DEVICE constexpr auto bits_of(T value) noexcept {
  using word = std::conditional_t<sizeof(T) == 8, std::uint64_t,
                                  std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>>;
  return bit_cast<word>(value);
}
}  // namespace detail

/// Whether two values have the same bits: tells 0 from -0, and finds a NaN equal to itself.
template <storage_scalar T>
LAMINA_HOST_DEVICE constexpr bool same_bits(T a, T b) noexcept {
  return detail::bits_of(a) == detail::bits_of(b);
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

namespace detail {

// `Count` elements that are read and written together, 16 bytes an access.
template <class T, index_t Count>
struct alignas(slot_bytes) element_run {
  T values[Count];

  LAMINA_HOST_DEVICE static element_run read(T const* from) noexcept {
    return *reinterpret_cast<element_run const*>(from);
  }
  LAMINA_HOST_DEVICE void write(T* to) const noexcept {
    *reinterpret_cast<element_run*>(to) = *this;
  }
  /// Whether memory starts where runs may; null has none to start.
  LAMINA_HOST_DEVICE static bool fits(void const* p) noexcept {
    return reinterpret_cast<std::uintptr_t>(p) % slot_bytes == 0;
  }
};

}  // namespace detail

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

  /// Calls update(row, i) for the elements of this lane, where element i of `row` is one of this
  /// row's. Where all of a row starts at multiples of 16 bytes, as tensors that a device allocated
  /// do, it passes through accesses of as many.
  template <lane_group Lanes, class Update>
  LAMINA_HOST_DEVICE void for_each(Lanes lanes, Update const& update) const {
    constexpr index_t count = slot_bytes / static_cast<index_t>(sizeof(T));
    using narrow = detail::element_run<T, count>;
    using wide = detail::element_run<S, count>;
    bool const aligned = narrow::fits(weights) && narrow::fits(gradients) && narrow::fits(first) &&
                         narrow::fits(second) && narrow::fits(master);
    index_t const in_runs = aligned ? size / count * count : 0;
    for (index_t i = count * lanes.lane(); i < in_runs; i += count * lanes.count()) {
      narrow own_weights = narrow::read(weights + i), own_gradients = narrow::read(gradients + i);
      wide own_first{}, own_second{}, own_master{};
      if (first != nullptr) own_first = wide::read(first + i);
      if (second != nullptr) own_second = wide::read(second + i);
      if constexpr (has_master) own_master = wide::read(master + i);
      update_row const run{own_weights.values, own_gradients.values, own_first.values,
                           own_second.values,  own_master.values,    count,
                           parameter};
      for (index_t k = 0; k < count; ++k) update(run, k);
      own_weights.write(weights + i);
      if (first != nullptr) own_first.write(first + i);
      if (second != nullptr) own_second.write(second + i);
      if constexpr (has_master) own_master.write(master + i);
    }
    for (index_t i = in_runs + lanes.lane(); i < size; i += lanes.count()) update(*this, i);
  }
};

LAMINA_NAMESPACE_END
