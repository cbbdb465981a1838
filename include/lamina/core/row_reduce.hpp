// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reductions and loops over the elements of one row, shared by the lanes of a group.
#pragma once

#include "lamina/core/lanes.hpp"
#include "lamina/core/scalar.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {
// Independent partial results a lane keeps: enough to fill two 8-wide vector registers and to hide
// the latency of an addition. The order of additions, hence the result, does not depend on the
// vector width the compiler picks.
inline constexpr index_t partial_count = 16;
}  // namespace detail

/// Calls f(i) for the elements of [begin, end) that belong to this lane.
template <lane_group Lanes, class F>
LAMINA_HOST_DEVICE inline void for_each_element(Lanes lanes, index_t begin, index_t end,
                                                F const& f) {
  if constexpr (std::is_same_v<Lanes, single_lane>) {
    for (index_t i = begin; i < end; ++i) f(i);
  } else {
    for (index_t i = begin + lanes.lane(); i < end; i += lanes.count()) f(i);
  }
}

/// This lane's share of max f(i) over [begin, end), starting from `initial`; not yet combined over
/// the lanes.
template <class T, lane_group Lanes, class F>
LAMINA_HOST_DEVICE inline T lane_max(Lanes lanes, index_t begin, index_t end, T initial,
                                     F const& f) {
  T partial[detail::partial_count];
  for (index_t j = 0; j < detail::partial_count; ++j) partial[j] = initial;
  index_t const stride = lanes.count();
  index_t const step = detail::partial_count * stride;
  index_t i = begin + lanes.lane();
  for (; i + step - stride < end; i += step) {
    for (index_t j = 0; j < detail::partial_count; ++j) {
      T const value = f(i + j * stride);
      partial[j] = value > partial[j] ? value : partial[j];
    }
  }
  for (; i < end; i += stride) {
    T const value = f(i);
    partial[0] = value > partial[0] ? value : partial[0];
  }
  T result = partial[0];
  for (index_t j = 1; j < detail::partial_count; ++j) {
    result = partial[j] > result ? partial[j] : result;
  }
  return result;
}

/// This lane's share of sum f(i) over [begin, end) in T; not yet combined over the lanes. Meant for
/// blocks of a few thousand elements, whose sums the caller keeps in double.
template <class T, lane_group Lanes, class F>
LAMINA_HOST_DEVICE inline T lane_sum(Lanes lanes, index_t begin, index_t end, F const& f) {
  T partial[detail::partial_count] = {};
  index_t const stride = lanes.count();
  index_t const step = detail::partial_count * stride;
  index_t i = begin + lanes.lane();
  for (; i + step - stride < end; i += step) {
    for (index_t j = 0; j < detail::partial_count; ++j) partial[j] += f(i + j * stride);
  }
  if constexpr (std::is_same_v<Lanes, single_lane>) {
    for (index_t j = 0; i < end; i += stride, ++j) partial[j] += f(i);
  } else {  // an index that varies would put the partial sums of a device's lane into memory
    for (; i < end; i += stride) partial[0] += f(i);
  }
  T result = partial[0];
  for (index_t j = 1; j < detail::partial_count; ++j) result += partial[j];
  return result;
}

/// Two sums over the same elements.
template <class T>
struct sum_pair {
  T first{};
  T second{};
};

/// lane_sum of two terms at once; f(i) returns a sum_pair<T>.
template <class T, lane_group Lanes, class F>
LAMINA_HOST_DEVICE inline sum_pair<T> lane_sum_pair(Lanes lanes, index_t begin, index_t end,
                                                    F const& f) {
  T first[detail::partial_count] = {};
  T second[detail::partial_count] = {};
  index_t const stride = lanes.count();
  index_t const step = detail::partial_count * stride;
  auto const add = [&](index_t i, index_t j) {
    sum_pair<T> const term = f(i);
    first[j] += term.first;
    second[j] += term.second;
  };
  index_t i = begin + lanes.lane();
  for (; i + step - stride < end; i += step) {
    for (index_t j = 0; j < detail::partial_count; ++j) add(i + j * stride, j);
  }
  if constexpr (std::is_same_v<Lanes, single_lane>) {
    for (index_t j = 0; i < end; i += stride, ++j) add(i, j);
  } else {
    for (; i < end; i += stride) add(i, 0);
  }
  for (index_t j = 1; j < detail::partial_count; ++j) {
    first[0] += first[j];
    second[0] += second[j];
  }
  return {first[0], second[0]};
}

LAMINA_NAMESPACE_END
