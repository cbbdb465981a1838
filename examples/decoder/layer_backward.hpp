// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One decoder layer backward: only the products that the plan asks for.
#pragma once

#include "examples/decoder/layer_forward.hpp"

namespace decoder {

/// Gradients of activations, reused by every layer; those of a layer's two branches share their
/// place.
///
/// Factor  what is only a factor of products is stored in; see product_factor
template <class T, class Factor = T>
struct activation_gradients {
  matrix_view<T> stream;        // [tokens, width]  of the residual stream, updated in place
  matrix_view<T> branch;        // [tokens, width]  of a branch's normalised input
  matrix_view<T> qkv;           // [tokens, qkv_width]
  matrix_view<T> mixed;         // [tokens, query_width]
  matrix_view<Factor> gate_up;  // [tokens, 2 ffn_width]
  matrix_view<T> activated;     // [tokens, ffn_width]

  template <class Backend>
  static activation_gradients lay_out(Backend const& backend, arena<Backend>& memory,
                                      config const& shape, index_t tokens) {
    index_t const d = shape.width, q = shape.query_width(), f = shape.ffn_width;
    index_t const attention = tokens * (shape.qkv_width() + q);
    index_t const mlp = tokens * f + arena<Backend>::template size_of<Factor>(tokens, 2 * f);
    memory.reset(backend, tokens * 2 * d + (std::max)(attention, mlp));
    activation_gradients g;
    auto const common = [&] {
      g.stream = memory.take(tokens, d);
      g.branch = memory.take(tokens, d);
    };
    common();
    g.qkv = memory.take(tokens, shape.qkv_width());
    g.mixed = memory.take(tokens, q);
    memory.reset(backend, 0);
    common();
    g.gate_up = memory.template take<Factor>(tokens, 2 * f);
    g.activated = memory.take(tokens, f);
    return g;
  }
};

/// The three forms of a linear map's backward pass and of a norm's. Weight gradients are computed
/// tensor by tensor, so that their bits do not depend on which neighbours are trained.
template <lamina::tensor_backend Backend>
struct backward_pass {
  using T = typename Backend::scalar_type;
  /// Columns that a row body sums together: a cache line's worth, and on a device so few that there
  /// are enough bodies to occupy it.
  static constexpr index_t column_block = lamina::device_backend<Backend> ? 4 : 16;

  Backend const& backend;
  config const& shape;
  rotary_cache<Backend> const& rotary;
  vector_view<index_t const> positions;
  widening<Backend>& wide;

  /// dx = dy w.
  template <class Factor, class Weight>
  void input_gradient(matrix_view<Factor> dy, matrix_view<Weight> w, matrix_view<T> dx) const {
    if constexpr (narrow_products<Backend, Weight>) {
      backend.gemm(transpose::no, transpose::no, T(1), narrowed<Weight>(backend, wide.left, dy),
                   matrix_view<Weight const>(w), T(0), dx);
    } else {
      read_weights(backend, wide, matrix_view<Weight const>(w), [&](index_t first, auto part) {
        backend.gemm(transpose::no, transpose::no, T(1),
                     columns(matrix_view<T const>(dy), first, part.rows), part,
                     T(first > 0 ? 1 : 0), dx);
      });
    }
  }
  /// dw = dy^T x, with dy the columns of `dy` from `first_column` on; nothing if untrained.
  template <class Dy, class X, class Weight>
  void weight_gradient(matrix_view<Dy> dy, index_t first_column, matrix_view<X> x,
                       matrix_view<Weight> dw) const {
    if (dw.rows == 0) return;
    if constexpr (narrow_products<Backend, Weight>) {
      backend.gemm(transpose::yes, transpose::no, T(1),
                   narrowed<Weight>(backend, wide.left, columns(dy, first_column, dw.rows)),
                   narrowed<Weight>(backend, wide.right, x), T(0), dw);
    } else {
      write_gradient(backend, wide, dw, [&](index_t first, matrix_view<T> part) {
        backend.gemm(transpose::yes, transpose::no, T(1),
                     columns(matrix_view<T const>(dy), first_column + first, part.rows),
                     matrix_view<T const>(x), T(0), part);
      });
    }
  }
  /// db = sum of the rows of dy; nothing if untrained.
  template <class Weight>
  void bias_gradient(matrix_view<T const> dy, index_t first_column, vector_view<Weight> db) const {
    vector_gradient(db, [&](vector_view<T> out) {
      return sum_columns<T, column_block>{columns(dy, first_column, out.size), out};
    });
  }
  template <class Weight>
  void norm_weight_gradient(matrix_view<T const> x, vector_view<T const> inverse_rms,
                            matrix_view<T const> dy, vector_view<Weight> dw) const {
    vector_gradient(dw, [&](vector_view<T> out) {
      return rms_norm_weight_gradient<T, column_block>{x, inverse_rms, dy, out};
    });
  }
  /// dw by a body over its column blocks, make_body(dw); nothing if untrained.
  template <class Weight, class MakeBody>
  void vector_gradient(vector_view<Weight> dw, MakeBody const& make_body) const {
    if (dw.empty()) return;
    write_gradient(backend, wide, dw, [&](vector_view<T> out) {
      backend.executor().run(column_block_count(out.size, column_block), make_body(out));
    });
  }
  void norm_input_gradient(matrix_view<T const> x, vector_view<T const> w,
                           vector_view<T const> inverse_rms, matrix_view<T const> dy,
                           matrix_view<T> dx) const {
    each_token(rms_norm_backward<T>{x, w, inverse_rms, dy, dx, {}});
  }
  template <class Body>
  void each_token(Body const& body) const {
    backend.executor().run(positions.size, body);
  }
};

/// Gradients of the activations of a layer with such weights.
template <lamina::tensor_backend Backend, class Weight>
using gradients_for =
    activation_gradients<typename Backend::scalar_type, product_factor<Backend, Weight>>;

/// A layer's gradients as the plan wants them: empty where the plan does not train the tensor, even
/// if an earlier plan did.
template <lamina::tensor_backend Backend, class Weight>
struct planned_gradients {
  tensor_block<Backend, Weight> const& block;
  lamina::backward_plan const& plan;
  index_t layer;

  template <class Tensor>
  matrix_view<Weight> matrix(Tensor tensor) const {
    return plan.weight_gradient(layer, block.role(tensor)) ? block.gradient(tensor)
                                                           : matrix_view<Weight>{};
  }
  template <class Tensor>
  vector_view<Weight> vector(Tensor tensor) const {
    return flat(matrix(tensor));
  }
};

/// Takes g.stream from the output of the feed-forward branch to its input.
template <lamina::tensor_backend Backend, class Weight>
void backward_mlp(backward_pass<Backend> const& run, layer_needs const& needs,
                  tensor_block<Backend, Weight> const& weights,
                  planned_gradients<Backend, Weight> const& grads,
                  activations_for<Backend, Weight> const& a,
                  gradients_for<Backend, Weight> const& g) {
  using T = typename Backend::scalar_type;
  using t = layer_tensor;
  layer_vectors<T> const vectors = vectors_of(run.backend, run.wide, weights);
  run.weight_gradient(g.stream, 0, a.activated, grads.matrix(t::down));
  if (!needs.mlp_inner) return;
  run.input_gradient(g.stream, weights.weight(t::down), g.activated);
  run.each_token(
      swiglu_backward<T, product_factor<Backend, Weight>>{a.gate_up, g.activated, g.gate_up});
  run.weight_gradient(g.gate_up, 0, a.mlp_input, grads.matrix(t::gate));
  run.weight_gradient(g.gate_up, run.shape.ffn_width, a.mlp_input, grads.matrix(t::up));
  if (!needs.mlp_input) return;
  run.input_gradient(g.gate_up, weights.stacked(t::gate, t::up), g.branch);
  run.norm_weight_gradient(a.mlp_residual, flat(a.mlp_inverse_rms), g.branch,
                           grads.vector(t::mlp_norm));
  if (!needs.middle) return;
  run.norm_input_gradient(a.mlp_residual, vectors.mlp_norm, flat(a.mlp_inverse_rms), g.branch,
                          g.stream);
}

/// Takes g.qkv from rotated heads to projections: rotation, then the head norms.
template <lamina::tensor_backend Backend, class Weight>
void backward_heads(backward_pass<Backend> const& run,
                    layer_vectors<typename Backend::scalar_type> const& vectors,
                    planned_gradients<Backend, Weight> const& grads,
                    activations_for<Backend, Weight> const& a,
                    gradients_for<Backend, Weight> const& g) {
  using T = typename Backend::scalar_type;
  using t = layer_tensor;
  config const& shape = run.shape;
  run.each_token(rotate_heads_backward<T>{shape, g.qkv, run.positions, run.rotary.cosine(),
                                          run.rotary.sine()});
  if (!shape.qk_norm) return;
  auto const norm_gradient = [&](index_t first_head, index_t head_count, vector_view<Weight> dw) {
    run.vector_gradient(dw, [&](vector_view<T> out) {
      return head_norm_weight_gradient<T, backward_pass<Backend>::column_block>{
          first_head, head_count, a.heads, a.head_inverse_rms, g.qkv, out};
    });
  };
  norm_gradient(0, shape.head_count, grads.vector(t::query_norm));
  norm_gradient(shape.head_count, shape.kv_head_count, grads.vector(t::key_norm));
  run.each_token(head_norm_backward<T>{shape, a.heads, a.head_inverse_rms, vectors.query_norm,
                                       vectors.key_norm, g.qkv});
}

/// Takes g.stream from the output of the attention branch to its input.
///
/// attend_backward  fills g.qkv from g.mixed
template <lamina::tensor_backend Backend, class Weight, class AttendBackward>
void backward_attention(backward_pass<Backend> const& run, layer_needs const& needs,
                        tensor_block<Backend, Weight> const& weights,
                        planned_gradients<Backend, Weight> const& grads,
                        activations_for<Backend, Weight> const& a,
                        gradients_for<Backend, Weight> const& g,
                        AttendBackward const& attend_backward) {
  using t = layer_tensor;
  auto const vectors = vectors_of(run.backend, run.wide, weights);
  index_t const q = run.shape.query_width(), k = run.shape.key_width();
  run.weight_gradient(g.stream, 0, a.mixed, grads.matrix(t::attention_output));
  if (!needs.attention_inner) return;
  run.input_gradient(g.stream, weights.weight(t::attention_output), g.mixed);
  attend_backward(a, g);
  backward_heads(run, vectors, grads, a, g);
  run.weight_gradient(g.qkv, 0, a.attention_input, grads.matrix(t::query));
  run.weight_gradient(g.qkv, q, a.attention_input, grads.matrix(t::key));
  run.weight_gradient(g.qkv, q + k, a.attention_input, grads.matrix(t::value));
  run.bias_gradient(g.qkv, 0, grads.vector(t::query_bias));
  run.bias_gradient(g.qkv, q, grads.vector(t::key_bias));
  run.bias_gradient(g.qkv, q + k, grads.vector(t::value_bias));
  if (!needs.attention_input) return;
  run.input_gradient(g.qkv, weights.stacked(t::query, t::value), g.branch);
  run.norm_weight_gradient(a.attention_residual, flat(a.attention_inverse_rms), g.branch,
                           grads.vector(t::attention_norm));
  if (!needs.input) return;
  run.norm_input_gradient(a.attention_residual, vectors.attention_norm,
                          flat(a.attention_inverse_rms), g.branch, g.stream);
}

}  // namespace decoder
