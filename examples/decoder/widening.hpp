// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Weights stored narrower than they are computed in: read and written piece by piece, so that the
// wide form of a tensor never exists as a whole; or multiplied as they are, by backends that can.
// Weights of full width pass through untouched.
#pragma once

#include <algorithm>

#include "examples/decoder/rows.hpp"
#include "examples/decoder/tensors.hpp"
#include "examples/decoder/workspace.hpp"
#include "lamina/backend/backend_vector.hpp"
#include "lamina/optim/update_row.hpp"

namespace decoder {

/// A backend that multiplies matrices as they are stored: narrow operands, sums in its scalar, and
/// a result in either type.
template <class Backend, class Weight>
concept narrow_products =
    lamina::tensor_backend<Backend> && !std::same_as<Weight, typename Backend::scalar_type> &&
    requires(Backend const& backend, typename Backend::scalar_type s, matrix_view<Weight const> in,
             matrix_view<Weight> narrow, matrix_view<typename Backend::scalar_type> wide) {
  backend.gemm(lamina::transpose::no, lamina::transpose::no, s, in, in, s, narrow);
  backend.gemm(lamina::transpose::no, lamina::transpose::no, s, in, in, s, wide);
};

/// What activations that are only factors of products with such weights are stored in.
template <class Backend, class Weight>
using product_factor =
    std::conditional_t<narrow_products<Backend, Weight>, Weight, typename Backend::scalar_type>;

/// Memory of a factor of a narrow product.
template <lamina::tensor_backend Backend>
class narrow_factor {
 public:
  explicit narrow_factor(Backend const& backend) : bytes_(backend, 0) {}

  /// Room for a matrix; what it was last used for is invalid.
  template <class Weight>
  matrix_view<Weight> take(Backend const& backend, index_t rows, index_t cols) {
    index_t const size = rows * cols * static_cast<index_t>(sizeof(Weight));
    if (size > bytes_.size())
      bytes_ = lamina::backend_vector<Backend, unsigned char>(backend, size);
    return {reinterpret_cast<Weight*>(bytes_.view().data), rows, cols};
  }

 private:
  lamina::backend_vector<Backend, unsigned char> bytes_;
};

/// Memory for pieces in another type. Stays empty where nothing is narrow.
template <lamina::tensor_backend Backend>
struct widening {
  explicit widening(Backend const& backend)
      : panel(backend), vectors(backend), left(backend), right(backend) {}

  arena<Backend> panel;          // some rows of a matrix
  arena<Backend> vectors;        // the norms and biases of a layer
  narrow_factor<Backend> left;   // of activations or their gradients
  narrow_factor<Backend> right;  // of activations

  /// Elements of a panel: enough rows for a good matrix product, few enough for the cache; on a
  /// device enough to occupy it.
  static constexpr index_t panel_size = index_t{1} << (lamina::device_backend<Backend> ? 24 : 20);
};

/// target[i, :] = source[i, :] in another type: exact when widening, rounded once when narrowing.
template <class From, class To>
struct convert_row {
  matrix_view<From const> source;
  matrix_view<To> target;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    From const* const from = source.row(row).data;
    To* const to = target.row(row).data;
    for_each_run<8>(lanes, target.cols, fit_runs(from, to), [=](auto n, index_t c) {
      auto const own = read_run(n, from + c);
      run<To, n.value> out;
      for (int k = 0; k < n.value; ++k) {
        out[k] = lamina::stored<To>(static_cast<lamina::compute_t<From>>(own[k]));
      }
      out.write(to + c);
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
    matrix_view<T> const wide = memory.vectors.take(1, vector.size);
    backend.executor().run(
        1, convert_row<Weight, T>{matrix_view<Weight const>(vector.data, 1, vector.size), wide});
    return flat(wide);
  }
}

/// Vectors of a layer widened into one piece of memory, one after another. Run over them.
template <class From, class To>
struct widen_vectors {
  static constexpr int count = 5;
  vector_view<From const> from[count];
  To* to;

  static constexpr auto schedule = lamina::row_schedule::block;

  /// The place of a vector in `to`.
  LAMINA_HOST_DEVICE vector_view<To> target(index_t vector) const {
    To* first = to;
    for (index_t v = 0; v < vector; ++v) first += from[v].size;
    return {first, from[vector].size};
  }
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t vector) const {
    From const* const own = from[vector].data;
    vector_view<To> const out = target(vector);
    lamina::for_each_element(lanes, 0, out.size,
                             [=](index_t c) { out.data[c] = static_cast<To>(own[c]); });
  }
};

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
  if constexpr (std::same_as<Weight, T>) {
    return {narrow[0], narrow[1], narrow[2], narrow[3], narrow[4]};
  } else {
    widen_vectors<Weight, T> body{{narrow[0], narrow[1], narrow[2], narrow[3], narrow[4]}, nullptr};
    index_t size = 0;
    for (auto const& vector : narrow) size += vector.size;
    memory.vectors.reset(backend, size);
    body.to = memory.vectors.take(1, size).data;
    backend.executor().run(body.count, body);
    return {body.target(0), body.target(1), body.target(2), body.target(3), body.target(4)};
  }
}

/// A matrix rounded to the type that weights are stored in.
template <class Weight, lamina::tensor_backend Backend>
matrix_view<Weight const> narrowed(Backend const& backend, narrow_factor<Backend>& memory,
                                   matrix_view<typename Backend::scalar_type const> x) {
  matrix_view<Weight> const narrow = memory.template take<Weight>(backend, x.rows, x.cols);
  backend.executor().run(x.rows, convert_row<typename Backend::scalar_type, Weight>{x, narrow});
  return narrow;
}

/// One that is stored so already.
template <class Weight, lamina::tensor_backend Backend>
matrix_view<Weight const> narrowed(Backend const&, narrow_factor<Backend>&,
                                   matrix_view<Weight const> x) {
  return x;
}

/// Columns [first, first + count) of a matrix.
template <class T>
matrix_view<T> columns(matrix_view<T> matrix, index_t first, index_t count) {
  return {matrix.data + first, matrix.rows, count, matrix.stride};
}

}  // namespace decoder
