// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Memory that steps reuse: it grows to the largest step seen and is then never allocated again.
#pragma once

#include "examples/decoder/config.hpp"
#include "examples/decoder/rotary.hpp"
#include "lamina/backend/backend.hpp"

namespace decoder {

using lamina::matrix_view;

/// One piece of backend memory handed out in parts. reset() takes all parts back; contents stay.
template <lamina::tensor_backend Backend>
class arena {
 public:
  using scalar_type = typename Backend::scalar_type;

  explicit arena(Backend const& backend) : memory_(backend.make_matrix(0, 0)) {}

  /// Makes room for `size` elements. Parts handed out before are invalid afterwards.
  void reset(Backend const& backend, index_t size) {
    if (size > size_) {
      memory_ = backend.make_matrix(1, size);
      size_ = size;
    }
    used_ = 0;
  }

  /// The next rows x cols elements.
  matrix_view<scalar_type> take(index_t rows, index_t cols) {
    LAMINA_ASSERT(used_ + rows * cols <= size_);
    matrix_view<scalar_type> const part{Backend::view(memory_).data + used_, rows, cols};
    used_ += rows * cols;
    return part;
  }

  /// Elements allocated.
  index_t size() const { return size_; }

 private:
  typename Backend::matrix_type memory_;
  index_t size_ = 0;
  index_t used_ = 0;
};

/// What the forward pass of one layer produces. Views that only a backward pass reads are empty in
/// a layer that keeps nothing.
template <class T>
struct layer_activations {
  matrix_view<T> attention_input;     // [tokens, width]        normalised
  matrix_view<T> qkv;                 // [tokens, qkv_width]    rotated heads
  matrix_view<T> mixed;               // [tokens, query_width]  attention output
  matrix_view<T> mlp_input;           // [tokens, width]        normalised
  matrix_view<T> gate_up;             // [tokens, 2 ffn_width]
  matrix_view<T> activated;           // [tokens, ffn_width]
  matrix_view<T> attention_residual;  // [tokens, width]        residual stream, kept
  matrix_view<T> mlp_residual;        // [tokens, width]        kept
  matrix_view<T> inverse_rms;         // [2, tokens]            of the two, kept
  matrix_view<T> log_sums;            // [tokens, heads]        of the attention, kept
  matrix_view<T> heads;               // [tokens, q + k]        before the query/key norm, kept
  matrix_view<T> head_inverse_rms;    // [tokens, heads + kv heads]  kept

  /// Lays the activations of `tokens` tokens out in `memory`, whose parts become invalid.
  template <class Backend>
  static layer_activations lay_out(Backend const& backend, arena<Backend>& memory,
                                   config const& shape, index_t tokens, bool keep) {
    index_t const d = shape.width, q = shape.query_width(), f = shape.ffn_width;
    index_t const qk = q + shape.key_width(), heads = shape.head_count + shape.kv_head_count;
    index_t const working = 2 * d + shape.qkv_width() + q + 3 * f;
    index_t const kept = 2 * d + 2 + shape.head_count + (shape.qk_norm ? qk + heads : 0);
    memory.reset(backend, tokens * (working + (keep ? kept : 0)));
    layer_activations a;
    a.attention_input = memory.take(tokens, d);
    a.qkv = memory.take(tokens, shape.qkv_width());
    a.mixed = memory.take(tokens, q);
    a.mlp_input = memory.take(tokens, d);
    a.gate_up = memory.take(tokens, 2 * f);
    a.activated = memory.take(tokens, f);
    if (!keep) return a;
    a.attention_residual = memory.take(tokens, d);
    a.mlp_residual = memory.take(tokens, d);
    a.inverse_rms = memory.take(2, tokens);
    a.log_sums = memory.take(tokens, shape.head_count);
    if (!shape.qk_norm) return a;
    a.heads = memory.take(tokens, qk);
    a.head_inverse_rms = memory.take(tokens, heads);
    return a;
  }
};

/// Cosines and sines of every position seen so far.
template <lamina::tensor_backend Backend>
class rotary_cache {
 public:
  using scalar_type = typename Backend::scalar_type;

  explicit rotary_cache(Backend const& backend) : memory_(backend) {}

  /// Covers positions [0, position_count).
  void cover(Backend const& backend, config const& shape, index_t position_count) {
    if (position_count <= cosine_.rows) return;
    index_t const half = shape.head_width / 2;
    memory_.reset(backend, 2 * position_count * half);
    cosine_ = memory_.take(position_count, half);
    sine_ = memory_.take(position_count, half);
    backend.executor().run(position_count, rotary_table<scalar_type>{&shape, cosine_, sine_});
  }
  matrix_view<scalar_type const> cosine() const { return cosine_; }
  matrix_view<scalar_type const> sine() const { return sine_; }

 private:
  arena<Backend> memory_;
  matrix_view<scalar_type> cosine_;  // [positions, head_width / 2]
  matrix_view<scalar_type> sine_;
};

}  // namespace decoder
