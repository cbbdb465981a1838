// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A row of floats that becomes a row of bf16 in its own memory.
#pragma once

#include "lamina/core/row_chunks.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

struct alignas(8) word_pair {
  std::uint32_t first, second;
};

// Element i of a row of floats becomes f(element i) in bf16, and one of them `value`; the row of
// bf16 lies in the first half of the row. `fetched` is what row_chunks::fetch returned, and has
// been waited for, or nothing_fetched. Nobody may be reading the row any more. Where one memory
// holds first the one row, then the other, it is words of one type, so that no compiler takes them
// for different memory.
template <lane_group Lanes, class F>
LAMINA_HOST_DEVICE inline void narrow_row(Lanes lanes, float* values, index_t size, F const& f,
                                          index_t element, float value, int fetched) {
  std::uint32_t* const words = reinterpret_cast<std::uint32_t*>(values);
  if constexpr (keeping_lane_group<Lanes>) {
    // The row of bf16 lies over the first half of the row: where that is kept, which a last part of
    // a chunk never is, no one reads what is written.
    bool const aligned = reinterpret_cast<std::uintptr_t>(values) % slot_bytes == 0;
    if (fetched >= 0 && aligned && size >= 4 && lanes.slot_count() * lanes.count() * 8 >= size) {
      row_chunks const chunks(lanes, values, size);
      chunks.visit(fetched, 0.0f, [&](int first, float const(&x)[4]) {
        word_pair const pair{narrow_pair<bf16>(f(x[0]), f(x[1])),
                             narrow_pair<bf16>(f(x[2]), f(x[3]))};
        if (first + 4 <= size) {
          *reinterpret_cast<word_pair*>(words + first / 2) = pair;
          return;
        }
        words[first / 2] = pair.first;
        if (first + 2 < size) words[first / 2 + 1] = pair.second;
      });
      if (chunks.owns(element)) {
        std::uint32_t& word = words[element / 2];
        word = element % 2 == 0 ? (word & 0xffff0000u) | bf16(value).bits
                                : (word & 0x0000ffffu) | std::uint32_t{bf16(value).bits} << 16;
      }
      return;
    }
  }
  auto const narrowed = [&f, element, value](float x, index_t i) {
    return std::uint32_t{bf16(i == element ? value : f(x)).bits};
  };
  index_t const lane = lanes.lane(), stride = lanes.count(), count = (size + 1) / 2;
  // What a lane overwrites, others have read: all of them read a part of the row, then all write.
  constexpr index_t pairs = 8;
  for (index_t begin = 0; begin < count; begin += pairs * stride) {
    std::uint32_t pair[pairs];
    for (index_t j = 0; j < pairs; ++j) {
      index_t const at = 2 * (begin + j * stride + lane);
      pair[j] = at < size ? narrowed(bit_cast<float>(words[at]), at) : 0u;
      if (at + 1 < size) pair[j] |= narrowed(bit_cast<float>(words[at + 1]), at + 1) << 16;
    }
    static_cast<void>(lanes.sum(0.0));
    for (index_t j = 0; j < pairs; ++j) {
      index_t const at = begin + j * stride + lane;
      if (at < count) words[at] = pair[j];
    }
  }
}

}  // namespace detail

LAMINA_NAMESPACE_END
