// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Small matrix products in cache: each tile of the result is summed in registers. What the
// attention is made of, where a call to a GEMM library would cost more than the product.
#pragma once

#include <type_traits>

#include "examples/decoder/rows.hpp"
#include "lamina/core/pack.hpp"

namespace decoder {

/// Rows and columns of a tile of the result: as many sums as the registers hold.
inline constexpr index_t tile_rows = 6;
template <real T>
inline constexpr index_t tile_cols = 2 * lamina::pack<T>::lanes;

/// `count` rounded up to a multiple of `unit`.
constexpr index_t round_up(index_t count, index_t unit) { return (count + unit - 1) / unit * unit; }

/// A matrix in pieces of tile_cols columns: column c of row k is at
/// data[c / tile_cols * piece + k * row + c % tile_cols]. Row-major has piece = tile_cols.
template <class T>
struct column_pieces {
  T* data;
  index_t piece;
  index_t row;

  operator column_pieces<T const>() const requires(!std::is_const_v<T>) {
    return {data, piece, row};
  }
};

/// How the left factor lies in memory: a[i, k] at [i * stride + k], or transposed at
/// [k * stride + i].
enum class left_factor : bool { as_it_is, transposed };
/// Whether a product replaces what is there.
enum class result : bool { replace, add };

namespace detail {

template <index_t Rows, left_factor Left, result Result, real T>
LAMINA_INLINE void multiply_tile(index_t depth, T const* a, index_t a_stride, T const* b,
                                 index_t b_stride, T* c, index_t c_stride) {
  using pack = lamina::pack<T>;
  pack sum[Rows][2];
  for (index_t i = 0; i < Rows; ++i) {
    for (index_t j = 0; j < 2; ++j) {
      sum[i][j] =
          Result == result::add ? pack::load(c + i * c_stride + j * pack::lanes) : pack(0.0);
    }
  }
  for (index_t k = 0; k < depth; ++k) {
    pack const left = pack::load(b + k * b_stride);
    pack const right = pack::load(b + k * b_stride + pack::lanes);
    for (index_t i = 0; i < Rows; ++i) {
      T const factor = Left == left_factor::transposed ? a[k * a_stride + i] : a[i * a_stride + k];
      sum[i][0] = sum[i][0] + pack(static_cast<double>(factor)) * left;
      sum[i][1] = sum[i][1] + pack(static_cast<double>(factor)) * right;
    }
  }
  for (index_t i = 0; i < Rows; ++i) {
    for (index_t j = 0; j < 2; ++j) sum[i][j].store(c + i * c_stride + j * pack::lanes);
  }
}

// The last rows: fewer than a tile.
template <index_t Rows, left_factor Left, result Result, real T>
void multiply_rows(index_t rows, index_t depth, T const* a, index_t a_stride, T const* b,
                   index_t b_stride, T* c, index_t c_stride) {
  if constexpr (Rows > 1) {
    if (rows < Rows) {
      return multiply_rows<Rows - 1, Left, Result>(rows, depth, a, a_stride, b, b_stride, c,
                                                   c_stride);
    }
  }
  multiply_tile<Rows, Left, Result>(depth, a, a_stride, b, b_stride, c, c_stride);
}

}  // namespace detail

/// c = a b, or c += a b. An element's bits depend on its row of a and its column of b only: its sum
/// runs over k in ascending order.
///
/// a  [rows, depth]  as `Left` says
/// b  [depth, cols]
/// c  [rows, cols]   stride c_stride; cols is rounded up to whole tiles, in b and in c
template <left_factor Left, result Result, real T>
void multiply(index_t rows, index_t depth, index_t cols, T const* a, index_t a_stride,
              column_pieces<T const> b, T* c, index_t c_stride) {
  for (index_t piece = 0; piece * tile_cols<T> < cols; ++piece) {
    for (index_t i = 0; i < rows; i += tile_rows) {
      detail::multiply_rows<tile_rows, Left, Result>(
          rows - i < tile_rows ? rows - i : tile_rows, depth,
          a + (Left == left_factor::transposed ? i : i * a_stride), a_stride,
          b.data + piece * b.piece, b.row, c + i * c_stride + piece * tile_cols<T>, c_stride);
    }
  }
}

}  // namespace decoder
