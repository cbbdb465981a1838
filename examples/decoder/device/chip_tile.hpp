// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Small matrices in memory that the lanes of a group share, and their products: what attention on a
// device is made of. A lane sums 4 x 4 elements of a product in registers and reads 16 bytes at a
// time.
#pragma once

#include <cstdint>

#include "examples/decoder/rows.hpp"

namespace decoder {

using lamina::sharing_lane_group;

/// Four neighbours of a row.
template <real T>
struct alignas(16) quad {
  T v[4];
};

/// `count` rounded up to a multiple of 4.
LAMINA_HOST_DEVICE constexpr int whole_quads(index_t count) {
  return static_cast<int>((count + 3) / 4 * 4);
}
/// Elements from one row to the next, for `cols` columns: whole quads, and one more, so that
/// neighbouring rows lie in different banks.
LAMINA_HOST_DEVICE constexpr int chip_stride(index_t cols) { return whole_quads(cols) + 4; }

/// A row-major matrix in shared memory. Rows and columns are used in multiples of 4.
template <real T>
struct chip_tile {
  T* data;
  int stride;

  LAMINA_HOST_DEVICE T& operator()(int row, int col) const { return data[row * stride + col]; }
  LAMINA_HOST_DEVICE quad<T> load(int row, int col) const {
    return *reinterpret_cast<quad<T> const*>(data + row * stride + col);
  }
  LAMINA_HOST_DEVICE void store(int row, int col, quad<T> const& value) const {
    *reinterpret_cast<quad<T>*>(data + row * stride + col) = value;
  }
};

/// Takes tiles and vectors off a piece of shared memory.
template <real T>
struct chip_memory {
  T* next;

  LAMINA_HOST_DEVICE chip_tile<T> tile(int rows, index_t cols) {
    chip_tile<T> const result{next, chip_stride(cols)};
    next += rows * result.stride;
    return result;
  }
  LAMINA_HOST_DEVICE T* vector(int size) {
    T* const result = next;
    next += whole_quads(size);
    return result;
  }
};

/// Elements [first, first + 4) of a row of `width` elements times `scale`; 0 beyond the end.
template <real T>
LAMINA_HOST_DEVICE quad<T> load_quad(T const* row, index_t first, index_t width, T scale) {
  quad<T> value{};
  bool const aligned = reinterpret_cast<std::uintptr_t>(row + first) % sizeof(quad<T>) == 0;
  if (aligned && first + 4 <= width) {
    value = *reinterpret_cast<quad<T> const*>(row + first);
  } else {
    for (int i = 0; i < 4; ++i) value.v[i] = first + i < width ? row[first + i] : T(0);
  }
  for (int i = 0; i < 4; ++i) value.v[i] *= scale;
  return value;
}

/// tile[r, :] = scale row(r)[0 .. width) for r < rows, where row(r) may be null for a row of zeros.
template <sharing_lane_group Lanes, real T, class Row>
LAMINA_HOST_DEVICE void load_tile(Lanes lanes, chip_tile<T> tile, int rows, index_t width, T scale,
                                  Row const& row) {
  int const quads = whole_quads(width) / 4;
  for (int e = static_cast<int>(lanes.lane()); e < rows * quads;
       e += static_cast<int>(lanes.count())) {
    int const r = e / quads, c = e % quads * 4;
    T const* const from = row(r);
    tile.store(r, c, from != nullptr ? load_quad(from, c, width, scale) : quad<T>{});
  }
}

/// row(r)[0 .. width) = scale(r) tile[r, :] for r < rows where row(r) is not null.
template <sharing_lane_group Lanes, real T, class Row, class Scale>
LAMINA_HOST_DEVICE void store_tile(Lanes lanes, chip_tile<T> tile, int rows, index_t width,
                                   Scale const& scale, Row const& row) {
  int const cols = static_cast<int>(width);
  for (int e = static_cast<int>(lanes.lane()); e < rows * cols;
       e += static_cast<int>(lanes.count())) {
    int const r = e / cols, c = e % cols;
    if (T* const to = row(r); to != nullptr) to[c] = scale(r) * tile(r, c);
  }
}

template <sharing_lane_group Lanes, real T>
LAMINA_HOST_DEVICE void clear_tile(Lanes lanes, chip_tile<T> tile, int rows) {
  for (int e = static_cast<int>(lanes.lane()); e < rows * tile.stride;
       e += static_cast<int>(lanes.count())) {
    tile.data[e] = T(0);
  }
}

/// How a factor lies in its tile: element (i, k) of a sum over k at [i, k], or at [k, i].
enum class factor : bool { by_rows, by_depth };

/// 4 x 4 elements of a product: element (m, n) belongs to row `row` + m and column `col` + n
/// `step`.
template <real T>
struct product_block {
  T sum[4][4];
  int row, col, step;
};

/// Calls f(block) for every block of the product [rows, cols] of sums over k of a(i, k) b(j, k);
/// the lane that has a block has the same one in every product of these sizes and factors. Sums run
/// over k in ascending order, so that their bits depend on nothing else.
///
/// a  [rows, depth]  as A says
/// b  [cols, depth]  as B says; columns of a block are spread where quads of neighbouring rows
///                   would lie in one bank
template <factor A, factor B, sharing_lane_group Lanes, real T, class F>
LAMINA_HOST_DEVICE void multiply_tiles(Lanes lanes, int rows, int cols, int depth, chip_tile<T> a,
                                       chip_tile<T> b, F const& f) {
  int const across = cols / 4;
  for (int e = static_cast<int>(lanes.lane()); e < rows / 4 * across;
       e += static_cast<int>(lanes.count())) {
    bool const spread = B == factor::by_rows;
    product_block<T> block{{}, e / across * 4, e % across * (spread ? 1 : 4), spread ? across : 1};
    for (int k = 0; k < depth; k += 4) {
      quad<T> x[4];
      for (int m = 0; m < 4; ++m) {
        x[m] = A == factor::by_rows ? a.load(block.row + m, k) : a.load(k + m, block.row);
      }
      for (int n = 0; n < 4; ++n) {
        quad<T> const y = spread ? b.load(block.col + n * across, k) : b.load(k + n, block.col);
        for (int m = 0; m < 4; ++m) {
          for (int i = 0; i < 4; ++i) {
            if constexpr (B == factor::by_rows) {  // y is row n over k + i
              block.sum[m][n] += (A == factor::by_rows ? x[m].v[i] : x[i].v[m]) * y.v[i];
            } else {  // y is k + n over rows i
              block.sum[m][i] += (A == factor::by_rows ? x[m].v[n] : x[n].v[m]) * y.v[i];
            }
          }
        }
      }
    }
    f(block);
  }
}

}  // namespace decoder
