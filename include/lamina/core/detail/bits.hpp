// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// std::bit_cast for device code, where constexpr functions of the standard library are out of
// reach.
#pragma once

#include <type_traits>

#include "lamina/config.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

template <class To, class From>
LAMINA_HOST_DEVICE constexpr To bit_cast(From from) noexcept {
  static_assert(sizeof(To) == sizeof(From) && std::is_trivially_copyable_v<To> &&
                std::is_trivially_copyable_v<From>);
  return __builtin_bit_cast(To, from);
}

}  // namespace detail

LAMINA_NAMESPACE_END
