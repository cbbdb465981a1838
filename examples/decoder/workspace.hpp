// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Memory that steps reuse: it grows to the largest step seen and is then never allocated again.
#pragma once

#include <algorithm>

#include "examples/decoder/memory.hpp"
#include "examples/decoder/rotary.hpp"
#include "lamina/backend/backend.hpp"

namespace decoder {

using lamina::layer_needs;
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

  /// The next rows x cols elements, which may be narrower ones.
  template <class U = scalar_type>
  matrix_view<U> take(index_t rows, index_t cols) {
    index_t const size = size_of<U>(rows, cols);
    LAMINA_ASSERT(used_ + size <= size_);
    matrix_view<U> const part{reinterpret_cast<U*>(Backend::view(memory_).data + used_), rows,
                              cols};
    used_ += size;
    return part;
  }
  /// What these take of `size`.
  template <class U>
  static constexpr index_t size_of(index_t rows, index_t cols) {
    constexpr index_t in_one = static_cast<index_t>(sizeof(scalar_type) / sizeof(U));
    return (rows * cols + in_one - 1) / in_one;
  }

  /// Elements allocated.
  index_t size() const { return size_; }

 private:
  typename Backend::matrix_type memory_;
  index_t size_ = 0;
  index_t used_ = 0;
};

/// What the forward pass of one layer produces. What the backward pass will read is kept, layer by
/// layer; the rest lies in working memory that all layers share, and in a layer the attention
/// branch and the feed-forward branch. Views that only a backward pass reads are empty where it
/// will not.
///
/// Factor  what is only a factor of products is stored in; see product_factor
template <class T, class Factor = T>
struct layer_activations {
  matrix_view<Factor> attention_input;   // [tokens, width]        normalised
  matrix_view<T> qkv;                    // [tokens, qkv_width]    rotated heads
  matrix_view<T> mixed;                  // [tokens, query_width]  attention output
  matrix_view<Factor> mlp_input;         // [tokens, width]        normalised
  matrix_view<T> gate_up;                // [tokens, 2 ffn_width]
  matrix_view<Factor> activated;         // [tokens, ffn_width]
  matrix_view<T> attention_residual;     // [tokens, width]        residual stream
  matrix_view<T> attention_inverse_rms;  // [1, tokens]
  matrix_view<T> mlp_residual;           // [tokens, width]        residual stream
  matrix_view<T> mlp_inverse_rms;        // [1, tokens]
  matrix_view<T> log_sums;               // [tokens, heads]        of the attention
  matrix_view<T> heads;                  // [tokens, q + k]        before the query/key norm
  matrix_view<T> head_inverse_rms;       // [tokens, heads + kv heads]

  /// Lays the activations of `tokens` tokens out: in `kept` what a backward pass for `needs` reads,
  /// all else in `working`. Parts of both become invalid.
  template <class Backend>
  static layer_activations lay_out(Backend const& backend, arena<Backend>& kept,
                                   arena<Backend>& working, config const& shape, index_t tokens,
                                   layer_needs const& needs) {
    layer_activations a;
    index_t kept_size = 0, attention_size = 0, mlp_size = 0;
    constexpr bool keep_mixed = lamina::device_backend<Backend>;
    auto const count = [&]<class U>(matrix_view<U>&, branch b, bool keep, index_t r, index_t c) {
      index_t const size = arena<Backend>::template size_of<U>(r, c);
      (keep ? kept_size : b == branch::attention ? attention_size : mlp_size) += size;
    };
    a.visit(shape, tokens, needs, keep_mixed, count);
    kept.reset(backend, kept_size);
    working.reset(backend, (std::max)(attention_size, mlp_size));
    branch last = branch::attention;
    a.visit(shape, tokens, needs, keep_mixed,
            [&]<class U>(matrix_view<U>& m, branch b, bool keep, index_t r, index_t c) {
              if (b != last) working.reset(backend, 0);
              last = b;
              m = (keep ? kept : working).template take<U>(r, c);
            });
    return a;
  }

  /// The same in working memory alone, for a pass that no backward pass follows.
  template <class Backend>
  static layer_activations lay_out(Backend const& backend, arena<Backend>& working,
                                   config const& shape, index_t tokens) {
    return lay_out(backend, working, working, shape, tokens, {});  // nothing is kept
  }

 private:
  enum class branch : std::uint8_t { attention, mlp };

  // Calls f(view, branch, whether it is kept, rows, columns) for every view the layer has, the
  // attention branch first. A device's backward pass through the attention reads its output.
  template <class F>
  void visit(config const& shape, index_t tokens, layer_needs const& needs, bool keep_mixed,
             F const& f) {
    index_t const d = shape.width, q = shape.query_width(), w = shape.ffn_width;
    auto const always = [&](auto& m, branch b, bool keep, index_t cols) {
      f(m, b, keep, tokens, cols);
    };
    auto const if_kept = [&](matrix_view<T>& m, branch b, bool keep, index_t rows, index_t cols) {
      if (keep) f(m, b, true, rows, cols);
    };
    bool const head_norm = needs.attention_inner && shape.qk_norm;
    branch const att = branch::attention, mlp = branch::mlp;
    // Matrices before vectors, so that they start where 16 bytes are read at a time.
    always(attention_input, att, needs.qkv, d);
    always(qkv, att, needs.attention_inner, shape.qkv_width());
    always(mixed, att, needs.output || (keep_mixed && needs.attention_inner), q);
    if_kept(attention_residual, att, needs.attention_input, tokens, d);
    if_kept(heads, att, head_norm, tokens, q + shape.key_width());
    always(mlp_input, mlp, needs.gate_up, d);
    always(gate_up, mlp, needs.mlp_inner, 2 * w);
    always(activated, mlp, needs.down, w);
    if_kept(mlp_residual, mlp, needs.mlp_input, tokens, d);
    if_kept(attention_inverse_rms, att, needs.attention_input, 1, tokens);
    if_kept(log_sums, att, needs.attention_inner, tokens, shape.head_count);
    if_kept(head_inverse_rms, att, head_norm, tokens, shape.head_count + shape.kv_head_count);
    if_kept(mlp_inverse_rms, mlp, needs.mlp_input, 1, tokens);
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
    backend.executor().run(position_count, rotary_table<scalar_type>{shape, cosine_, sine_});
  }
  matrix_view<scalar_type const> cosine() const { return cosine_; }
  matrix_view<scalar_type const> sine() const { return sine_; }

 private:
  arena<Backend> memory_;
  matrix_view<scalar_type> cosine_;  // [positions, head_width / 2]
  matrix_view<scalar_type> sine_;
};

}  // namespace decoder
