// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Numbers for benchmarks, made where they are used: nothing is uploaded.
#pragma once

#include <cstdint>

#include "lamina/backend/backend.hpp"

namespace lamina::benchmarks {

// Numbers around `middle`, up to `size` away, that differ in every place, and with the seed.
template <storage_scalar T>
struct fill_body {
  static constexpr row_schedule schedule = row_schedule::block;
  matrix_view<T> values;
  float size;
  index_t seed = 0;
  float middle = 0;
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    for (index_t v = lanes.lane(); v < values.cols; v += lanes.count()) {
      auto const hash = static_cast<std::uint32_t>((seed + row) * 7919 + v) * 2654435761u;
      values(row, v) = T(middle + (static_cast<float>(hash >> 8) * 0x1p-23f - 1.0f) * size);
    }
  }
};

template <tensor_backend Backend, storage_scalar T>
void fill(Backend const& backend, vector_view<T> values, float size, index_t seed = 0,
          float middle = 0) {
  index_t const cols = values.size < 4096 ? values.size : 4096;
  index_t const rows = cols > 0 ? values.size / cols : 0, rest = values.size - rows * cols;
  backend.executor().run(rows, fill_body<T>{{values.data, rows, cols}, size, seed, middle});
  backend.executor().run(
      rest > 0 ? 1 : 0,
      fill_body<T>{{values.data + rows * cols, 1, rest}, size, seed + rows, middle});
}

}  // namespace lamina::benchmarks
