// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rows picked, placed, filled and summed: what lies between the matrix products.
#pragma once

#include <cstdint>
#include <type_traits>

#include "lamina/core/lanes.hpp"
#include "lamina/core/row_reduce.hpp"
#include "lamina/core/view.hpp"
#include "lamina/optim/update_row.hpp"

namespace decoder {

using lamina::index_t;
using lamina::lane_group;
using lamina::matrix_view;
using lamina::real;
using lamina::vector_view;

/// Neighbouring elements that are read and written together, 16 bytes at a time.
template <class T, int Count>
struct alignas(Count * sizeof(T) < 16 ? Count * sizeof(T) : 16) run {
  T values[Count];

  LAMINA_HOST_DEVICE T& operator[](int k) { return values[k]; }
  LAMINA_HOST_DEVICE T const& operator[](int k) const { return values[k]; }
  LAMINA_HOST_DEVICE void write(T* to) const { *reinterpret_cast<run*>(to) = *this; }
};
template <int Count>
using run_length = std::integral_constant<int, Count>;
template <int Count, class T>
LAMINA_HOST_DEVICE run<T, Count> read_run(run_length<Count>, T const* from) {
  return *reinterpret_cast<run<T, Count> const*>(from);
}
/// Whether runs of any length may start at all of these.
template <class... T>
LAMINA_HOST_DEVICE bool fit_runs(T const*... p) {
  return ((reinterpret_cast<std::uintptr_t>(p) % 16 == 0) && ...);
}

/// Calls f(length, first) for runs that cover [0, size): of Count elements where they fit, and of
/// one elsewhere. A single lane has runs of one, which compilers turn into vectors of their own.
template <int Count, lane_group Lanes, class F>
LAMINA_HOST_DEVICE void for_each_run(Lanes lanes, index_t size, bool fit, F const& f) {
  if constexpr (std::same_as<Lanes, lamina::single_lane>) {
    for (index_t i = 0; i < size; ++i) f(run_length<1>{}, i);
  } else {
    index_t const in_runs = fit ? size / Count * Count : 0;
    for (index_t i = Count * lanes.lane(); i < in_runs; i += Count * lanes.count()) {
      f(run_length<Count>{}, i);
    }
    for (index_t i = in_runs + lanes.lane(); i < size; i += lanes.count()) f(run_length<1>{}, i);
  }
}

/// This lane's share of the sum of f(length, first) over such runs.
template <int Count, real T, lane_group Lanes, class F>
LAMINA_HOST_DEVICE T lane_sum_of_runs(Lanes lanes, index_t size, bool fit, F const& f) {
  if constexpr (std::same_as<Lanes, lamina::single_lane>) {
    return lamina::lane_sum<T>(lanes, 0, size, [&](index_t i) { return f(run_length<1>{}, i); });
  } else {
    T total = T(0);
    for_each_run<Count>(lanes, size, fit, [&](auto n, index_t i) { total += f(n, i); });
    return total;
  }
}

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
    for_each_run<4>(lanes, target.cols, fit_runs(from, to),
                    [=](auto n, index_t c) { read_run(n, from + c).write(to + c); });
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
      for (index_t k = 0; k < Columns; ++k) {  // constant bounds keep totals in registers
        if (first + k < out.size) total[k] += double(term(r, first + k));
      }
    }
  }
  for (index_t k = 0; k < Columns; ++k) {
    if (first + k >= out.size) continue;
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
