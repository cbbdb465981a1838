// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One decoder layer forward; training and sampling differ in the attention they pass in.
#pragma once

#include "examples/decoder/attention.hpp"
#include "examples/decoder/rms_norm.hpp"
#include "examples/decoder/rotary.hpp"
#include "examples/decoder/swiglu.hpp"
#include "examples/decoder/tensors.hpp"
#include "examples/decoder/widening.hpp"
#include "examples/decoder/workspace.hpp"

namespace decoder {

using lamina::transpose;

/// y = x w^T, or y += x w^T, by one product of the backend.
struct whole_product {
  template <lamina::tensor_backend Backend, real T>
  void operator()(Backend const& backend, matrix_view<T const> x, matrix_view<T const> w, bool add,
                  matrix_view<T> y) const {
    backend.gemm(transpose::no, transpose::yes, T(1), x, w, add ? T(1) : T(0), y);
  }
};

/// What the layers of one pass share. Matrices may have more rows than there are tokens; rows past
/// the last token are computed and never read.
///
/// positions  [tokens]  place of each token in its sequence
/// wide       where weights are widened
/// product    product(backend, x, w, add, y): y = x w^T, or y += x w^T
template <lamina::tensor_backend Backend, class Product = whole_product>
struct forward_pass {
  using scalar_type = typename Backend::scalar_type;

  Backend const& backend;
  config const& shape;
  rotary_cache<Backend> const& rotary;
  vector_view<index_t const> positions;
  widening<Backend>& wide;
  Product product;

  index_t token_count() const { return positions.size; }

  /// Runs a row body once for each token.
  template <class Body>
  void each_token(Body const& body) const {
    backend.executor().run(token_count(), body);
  }

  /// y = x w^T.
  ///
  /// x  [rows, in]   in the scalar, or as a product_factor
  /// w  [out, in]
  /// y  [rows, out]
  template <class Factor, class Weight>
  void project(matrix_view<Factor> x, matrix_view<Weight> w, matrix_view<scalar_type> y) const {
    multiply(x, w, false, y);
  }
  /// y += x w^T.
  template <class Factor, class Weight>
  void project_onto(matrix_view<Factor> x, matrix_view<Weight> w,
                    matrix_view<scalar_type> y) const {
    multiply(x, w, true, y);
  }

  /// y = w x / rms(x); keeps what the backward pass needs where `kept` and `inverse_rms` have room.
  template <class Factor>
  void normalize(matrix_view<scalar_type const> x, vector_view<scalar_type const> w,
                 matrix_view<Factor> y, matrix_view<scalar_type> kept,
                 vector_view<scalar_type> inverse_rms) const {
    auto const epsilon = static_cast<scalar_type>(shape.norm_epsilon);
    each_token(rms_norm<scalar_type, Factor>{x, w, epsilon, y, kept, inverse_rms});
  }

 private:
  template <class Factor, class Weight>
  void multiply(matrix_view<Factor> x, matrix_view<Weight> w, bool add,
                matrix_view<scalar_type> y) const {
    using T = scalar_type;
    if constexpr (narrow_products<Backend, Weight>) {
      backend.gemm(transpose::no, transpose::yes, T(1), narrowed<Weight>(backend, wide.left, x),
                   matrix_view<Weight const>(w), add ? T(1) : T(0), y);
    } else {
      read_weights(backend, wide, matrix_view<Weight const>(w), [&](index_t first, auto part) {
        product(backend, matrix_view<T const>(x), matrix_view<T const>(part), add,
                columns(y, first, part.rows));
      });
    }
  }
};

/// Activations of a layer with such weights.
template <lamina::tensor_backend Backend, class Weight>
using activations_for =
    layer_activations<typename Backend::scalar_type, product_factor<Backend, Weight>>;

/// stream += attention(norm(stream)); stream += mlp(norm(stream)).
///
/// stream  [rows, width]  residual stream, updated in place
/// a       where activations go
/// attend  attend(qkv, mixed) fills a.mixed from the rotated heads
template <lamina::tensor_backend Backend, class Product, class Weight, class Attend>
void forward_layer(forward_pass<Backend, Product> const& run,
                   tensor_block<Backend, Weight> const& weights,
                   activations_for<Backend, Weight> const& a,
                   matrix_view<typename Backend::scalar_type> stream, Attend const& attend) {
  using T = typename Backend::scalar_type;
  using t = layer_tensor;
  layer_vectors<T> const vectors = vectors_of(run.backend, run.wide, weights);

  run.normalize(stream, vectors.attention_norm, a.attention_input, a.attention_residual,
                flat(a.attention_inverse_rms));
  run.project(a.attention_input, weights.stacked(t::query, t::value), a.qkv);
  run.each_token(rotate_heads<T>{run.shape, a.qkv, run.positions, run.rotary.cosine(),
                                 run.rotary.sine(), vectors.qkv_bias, vectors.query_norm,
                                 vectors.key_norm, a.heads, a.head_inverse_rms});
  attend(a.qkv, a.mixed);
  run.project_onto(a.mixed, weights.weight(t::attention_output), stream);

  run.normalize(stream, vectors.mlp_norm, a.mlp_input, a.mlp_residual, flat(a.mlp_inverse_rms));
  run.project(a.mlp_input, weights.stacked(t::gate, t::up), a.gate_up);
  run.each_token(swiglu<T, product_factor<Backend, Weight>>{a.gate_up, a.activated});
  run.project_onto(a.activated, weights.weight(t::down), stream);
}

}  // namespace decoder
