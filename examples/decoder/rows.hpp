// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rows picked, placed, filled and summed: what lies between the matrix products.
#pragma once

#include "lamina/core/lanes.hpp"
#include "lamina/core/row_reduce.hpp"
#include "lamina/core/view.hpp"

namespace decoder {

using lamina::index_t;
using lamina::lane_group;
using lamina::matrix_view;
using lamina::real;
using lamina::vector_view;

/// target[i, :] = source[index[i], :], which may be stored in a narrower type.
template <real T, class Index, class Source = T>
struct gather_rows {
  matrix_view<Source const> source;
  vector_view<Index const> index;
  matrix_view<T> target;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    Source const* const from = source.row(index[row]).data;
    T* const to = target.row(row).data;
    lamina::for_each_element(lanes, 0, target.cols,
                             [=](index_t c) { to[c] = static_cast<T>(from[c]); });
  }
};

/// target[i, :] = source[i, :].
template <real T>
struct copy_row {
  matrix_view<T const> source;
  matrix_view<T> target;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    T const* const from = source.row(row).data;
    T* const to = target.row(row).data;
    lamina::for_each_element(lanes, 0, target.cols, [=](index_t c) { to[c] = from[c]; });
  }
};

/// target[i, :] = 0.
template <real T>
struct zero_rows {
  matrix_view<T> target;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    T* const to = target.row(row).data;
    lamina::for_each_element(lanes, 0, target.cols, [=](index_t c) { to[c] = T(0); });
  }
};

/// Number of row bodies that cover `cols` columns, `block` of them each.
constexpr index_t column_block_count(index_t cols, index_t block) {
  return (cols + block - 1) / block;
}

/// out[c] = sum over r < rows of term(r, c), for the Columns columns of block `block`. Sums are
/// kept in double and taken in row order, so that they depend neither on threads nor on the block.
template <index_t Columns, real T, lane_group Lanes, class Term>
LAMINA_HOST_DEVICE void sum_column_block(Lanes lanes, index_t block, index_t rows,
                                         vector_view<T> out, Term const& term) {
  index_t const first = block * Columns;
  double total[Columns] = {};
  if (first + Columns <= out.size) {
    for (index_t r = lanes.lane(); r < rows; r += lanes.count()) {
      for (index_t k = 0; k < Columns; ++k) total[k] += double(term(r, first + k));
    }
  } else {
    for (index_t r = lanes.lane(); r < rows; r += lanes.count()) {
      for (index_t k = 0; first + k < out.size; ++k) total[k] += double(term(r, first + k));
    }
  }
  for (index_t k = 0; k < Columns && first + k < out.size; ++k) {
    double const sum = lanes.sum(total[k]);
    if (lanes.lane() == 0) out[first + k] = static_cast<T>(sum);
  }
}

/// Gradient of a bias: out[c] = sum over rows of d_output[row, c]. Run over column blocks.
template <real T, index_t Columns>
struct sum_columns {
  matrix_view<T const> d_output;
  vector_view<T> out;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t block) const {
    sum_column_block<Columns, T>(lanes, block, d_output.rows, out,
                                 [this](index_t r, index_t c) { return d_output(r, c); });
  }
};

/// Gradient of an embedding table: row v of `gradient` is the sum of d_output over the positions
/// that hold token v, in ascending order of position, added to what is there if `accumulate`.
///
/// first      [vocab + 1]  where the positions of each token start in `positions`
/// positions  [tokens]     sorted by token, then by position
template <real T>
struct sum_by_token {
  matrix_view<T const> d_output;
  vector_view<index_t const> first;
  vector_view<index_t const> positions;
  bool accumulate;
  matrix_view<T> gradient;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t token) const {
    T* const out = gradient.row(token).data;
    if (!accumulate) {
      lamina::for_each_element(lanes, 0, gradient.cols, [=](index_t c) { out[c] = T(0); });
    }
    for (index_t i = first[token]; i < first[token + 1]; ++i) {
      T const* const d = d_output.row(positions[i]).data;
      lamina::for_each_element(lanes, 0, gradient.cols, [=](index_t c) { out[c] += d[c]; });
    }
  }
};

}  // namespace decoder
