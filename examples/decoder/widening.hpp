// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Weights stored narrower than they are computed in: read and written piece by piece, so that the
// wide form of a tensor never exists as a whole. Weights of full width pass through untouched.
#pragma once

#include <algorithm>

#include "examples/decoder/rows.hpp"
#include "examples/decoder/tensors.hpp"
#include "examples/decoder/workspace.hpp"
#include "lamina/optim/update_row.hpp"

namespace decoder {

/// Memory for wide pieces. Stays empty where nothing is narrow.
template <lamina::tensor_backend Backend>
struct widening {
  explicit widening(Backend const& backend) : panel(backend), vectors(backend) {}

  arena<Backend> panel;    // some rows of a matrix
  arena<Backend> vectors;  // the norms and biases of a layer

  /// Elements of a panel: enough rows for a good matrix product, few enough for the cache.
  static constexpr index_t panel_size = index_t{1} << 20;
};

/// target[i, :] = source[i, :] in another type: exact when widening, rounded once when narrowing.
template <class From, class To>
struct convert_row {
  matrix_view<From const> source;
  matrix_view<To> target;

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t row) const {
    From const* const from = source.row(row).data;
    To* const to = target.row(row).data;
    lamina::for_each_element(lanes, 0, target.cols, [=](index_t c) {
      to[c] = lamina::stored<To>(static_cast<lamina::compute_t<From>>(from[c]));
    });
  }
};

/// Calls f(first row, rows of `weights` in the backend's scalar) until all rows have been seen.
template <lamina::tensor_backend Backend, class Weight, class F>
void read_weights(Backend const& backend, widening<Backend>& memory,
                  matrix_view<Weight const> weights, F const& f) {
  using T = typename Backend::scalar_type;
  if constexpr (std::same_as<Weight, T>) {
    f(index_t{0}, weights);
  } else {
    index_t const most = (std::max)(index_t{1}, widening<Backend>::panel_size / weights.cols);
    for (index_t first = 0; first < weights.rows; first += most) {
      index_t const count = (std::min)(most, weights.rows - first);
      memory.panel.reset(backend, count * weights.cols);
      matrix_view<T> const panel = memory.panel.take(count, weights.cols);
      backend.executor().run(count, convert_row<Weight, T>{weights.row_block(first, count), panel});
      f(first, matrix_view<T const>(panel));
    }
  }
}

/// Calls f(first row, rows of `gradient` to fill in the backend's scalar) until all are written;
/// each element is computed wide and rounded once.
template <lamina::tensor_backend Backend, class Weight, class F>
void write_gradient(Backend const& backend, widening<Backend>& memory, matrix_view<Weight> gradient,
                    F const& f) {
  using T = typename Backend::scalar_type;
  if constexpr (std::same_as<Weight, T>) {
    f(index_t{0}, gradient);
  } else {
    index_t const most = (std::max)(index_t{1}, widening<Backend>::panel_size / gradient.cols);
    for (index_t first = 0; first < gradient.rows; first += most) {
      index_t const count = (std::min)(most, gradient.rows - first);
      memory.panel.reset(backend, count * gradient.cols);
      matrix_view<T> const panel = memory.panel.take(count, gradient.cols);
      f(first, panel);
      backend.executor().run(count,
                             convert_row<T, Weight>{panel, gradient.row_block(first, count)});
    }
  }
}

/// The same for a vector, in one piece.
template <lamina::tensor_backend Backend, class Weight, class F>
void write_gradient(Backend const& backend, widening<Backend>& memory, vector_view<Weight> gradient,
                    F const& f) {
  write_gradient(backend, memory, matrix_view<Weight>(gradient.data, 1, gradient.size),
                 [&](index_t, auto row) { f(flat(row)); });
}

/// A vector in the backend's scalar. Valid until the next vectors with this memory.
template <lamina::tensor_backend Backend, class Weight>
vector_view<typename Backend::scalar_type const> wide_vector(Backend const& backend,
                                                             widening<Backend>& memory,
                                                             vector_view<Weight> vector) {
  using T = typename Backend::scalar_type;
  if constexpr (std::same_as<Weight, T>) {
    return vector;
  } else {
    memory.vectors.reset(backend, vector.size);
    vector_view<T> const wide = flat(memory.vectors.take(1, vector.size));
    for (index_t i = 0; i < wide.size; ++i) wide[i] = static_cast<T>(vector[i]);
    return wide;
  }
}

/// The vectors of a layer in the backend's scalar; empty where the model has none.
template <class T>
struct layer_vectors {
  vector_view<T const> attention_norm;
  vector_view<T const> qkv_bias;
  vector_view<T const> query_norm;
  vector_view<T const> key_norm;
  vector_view<T const> mlp_norm;
};

/// Valid until the next vectors with this memory.
template <lamina::tensor_backend Backend, class Weight>
layer_vectors<typename Backend::scalar_type> vectors_of(
    Backend const& backend, widening<Backend>& memory, tensor_block<Backend, Weight> const& block) {
  using T = typename Backend::scalar_type;
  using t = layer_tensor;
  vector_view<Weight const> const narrow[] = {
      block.vector(t::attention_norm), block.stacked_vector(t::query_bias, t::value_bias),
      block.vector(t::query_norm), block.vector(t::key_norm), block.vector(t::mlp_norm)};
  vector_view<T const> wide[5];
  if constexpr (std::same_as<Weight, T>) {
    std::copy(narrow, narrow + 5, wide);
  } else {
    index_t size = 0;
    for (auto const& vector : narrow) size += vector.size;
    memory.vectors.reset(backend, size);
    for (int i = 0; i < 5; ++i) {
      vector_view<T> const target = flat(memory.vectors.take(1, narrow[i].size));
      for (index_t c = 0; c < target.size; ++c) target[c] = static_cast<T>(narrow[i][c]);
      wide[i] = target;
    }
  }
  return {wide[0], wide[1], wide[2], wide[3], wide[4]};
}

/// Columns [first, first + count) of a matrix.
template <class T>
matrix_view<T> columns(matrix_view<T> matrix, index_t first, index_t count) {
  return {matrix.data + first, matrix.rows, count, matrix.stride};
}

}  // namespace decoder
