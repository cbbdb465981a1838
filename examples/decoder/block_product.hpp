// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Products of sampling: few rows at a time, by weights that are read once and never packed.
#pragma once

#include "examples/decoder/workspace.hpp"

namespace decoder {

/// Columns that one row body turns.
inline constexpr index_t turn_width = 16;

/// target[c, r] = source[r, c]. Run over blocks of turn_width columns.
template <real T>
struct turn_columns {
  matrix_view<T const> source;
  matrix_view<T> target;

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t block) const {
    index_t const first = block * turn_width;
    index_t const end = first + turn_width < source.cols ? first + turn_width : source.cols;
    for (index_t r = 0; r < source.rows; ++r) {
      lamina::for_each_element(lanes, first, end,
                               [=, this](index_t c) { target(c, r) = source(r, c); });
    }
  }
};

/// target[r, c] = source[c, r], or added to what is there. Run over blocks of turn_width columns.
template <real T>
struct turn_back {
  matrix_view<T const> source;
  bool add;
  matrix_view<T> target;

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t block) const {
    index_t const first = block * turn_width;
    index_t const end = first + turn_width < target.cols ? first + turn_width : target.cols;
    for (index_t r = 0; r < target.rows; ++r) {
      lamina::for_each_element(lanes, first, end, [=, this](index_t c) {
        target(r, c) = source(c, r) + (add ? target(r, c) : T(0));
      });
    }
  }
};

/// y = x w^T, or y += x w^T, in blocks of `block_rows` rows, so that a row's rounding does not
/// depend on how many others there are. A block is computed turned, y^T = w x^T: GEMM libraries
/// then read the weights as they lie, where they would copy them for x w^T at a cost that so few
/// rows do not repay.
template <lamina::tensor_backend Backend>
class block_product {
 public:
  using scalar_type = typename Backend::scalar_type;
  static constexpr index_t block_rows = 32;

  /// `count` rounded up to whole blocks.
  static constexpr index_t whole(index_t count) {
    return (count + block_rows - 1) / block_rows * block_rows;
  }

  explicit block_product(Backend const& backend) : memory_(backend) {}

  /// Elements of memory for inputs of up to `widest` columns.
  static constexpr index_t scratch_size(index_t widest) { return block_rows * (widest + chunk); }

  /// Makes room for inputs of up to `widest` columns.
  void reset(Backend const& backend, index_t widest) {
    memory_.reset(backend, scratch_size(widest));
    input_ = memory_.take(widest, block_rows);
    output_ = memory_.take(chunk, block_rows);
  }

  /// x  [rows, in]   whole blocks
  /// w  [out, in]
  /// y  [rows, out]
  void operator()(Backend const& backend, matrix_view<scalar_type const> x,
                  matrix_view<scalar_type const> w, bool add, matrix_view<scalar_type> y) const {
    using T = scalar_type;
    for (index_t row = 0; row < x.rows; row += block_rows) {
      matrix_view<T> const input = input_.row_block(0, x.cols);
      backend.executor().run(turn_count(x.cols),
                             turn_columns<T>{x.row_block(row, block_rows), input});
      for (index_t first = 0; first < w.rows; first += chunk) {
        index_t const count = w.rows - first < chunk ? w.rows - first : chunk;
        matrix_view<T> const output = output_.row_block(0, count);
        backend.gemm(lamina::transpose::no, lamina::transpose::no, T(1), w.row_block(first, count),
                     input, T(0), output);
        matrix_view<T> const target{y.row(row).data + first, block_rows, count, y.stride};
        backend.executor().run(turn_count(count), turn_back<T>{output, add, target});
      }
    }
  }

 private:
  static constexpr index_t chunk = 3072;  // outputs at a time, so that they are turned in cache
  static constexpr index_t turn_count(index_t cols) { return (cols + turn_width - 1) / turn_width; }

  arena<Backend> memory_;
  matrix_view<scalar_type> input_;
  matrix_view<scalar_type> output_;
};

}  // namespace decoder
