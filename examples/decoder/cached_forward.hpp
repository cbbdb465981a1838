// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The forward pass of sampling: only new tokens run, everything before them is in the cache.
#pragma once

#include <algorithm>

#include "examples/decoder/block_product.hpp"
#include "examples/decoder/key_value_cache.hpp"
#include "examples/decoder/transformer.hpp"

namespace decoder {

/// Runs new tokens of many sequences at once; keeps its memory between calls.
///
/// Bits: the logits of a token depend on its sequence and not on what runs beside it, as long as
/// the backend's product treats the rows of one block alike: products are done in blocks of a fixed
/// number of rows, the last one filled up, and everything else row by row.
template <lamina::host_backend Backend>
class cached_forward {
 public:
  using scalar_type = typename Backend::scalar_type;

  explicit cached_forward(Backend const& backend)
      : cache_(backend),
        rotary_(backend),
        product_(backend),
        layer_memory_(backend),
        memory_(backend),
        scratch_memory_(backend),
        wide_(backend) {}

  /// Forgets everything and makes room for `rows` sequences of at most max_length tokens.
  template <class Weight>
  void reset(transformer<Backend, Weight> const& model, index_t rows, index_t max_length) {
    shape_ = model.shape();
    cache_.reset(model.backend(), shape_, rows, max_length);
    rotary_.cover(model.backend(), shape_, max_length);
    product_.reset(model.backend(),
                   std::max({shape_.width, shape_.query_width(), shape_.ffn_width}));
    index_t const scratch = cached_attention<scalar_type>::scratch_size(shape_, max_length);
    scratch_memory_.reset(model.backend(), attention_worker_count * scratch);
    scratch_ = scratch_memory_.take(attention_worker_count, scratch);
  }

  /// Sequence `to` has seen the first `length` tokens of sequence `from`.
  void copy_row(index_t from, index_t to, index_t length) { cache_.copy_row(from, to, length); }

  /// Logits [wanted, vocab]; valid until the next call, may be overwritten.
  ///
  /// tokens  [tokens]  ids; those of one sequence in order, at the positions that follow its last
  /// added   [tokens]  where they belong
  /// wanted  [wanted]  indices of tokens whose logits are wanted
  template <class Weight>
  matrix_view<scalar_type> run(transformer<Backend, Weight> const& model,
                               vector_view<std::int32_t const> tokens, new_tokens added,
                               vector_view<index_t const> wanted) {
    using T = scalar_type;
    Backend const& backend = model.backend();
    index_t const rows = product_.whole(tokens.size), last_rows = product_.whole(wanted.size);
    memory_.reset(backend, rows * shape_.width + last_rows * (shape_.width + shape_.vocab));
    matrix_view<T> const stream = memory_.take(rows, shape_.width);
    matrix_view<T> const hidden = memory_.take(last_rows, shape_.width);
    matrix_view<T> const logits = memory_.take(last_rows, shape_.vocab);
    auto const a = activations_for<Backend, Weight>::lay_out(backend, layer_memory_, shape_, rows);

    tensor_block<Backend, Weight> const& outer = model.block(lamina::outside_layers);
    forward_pass<Backend, block_product<Backend> const&> const run{
        backend, shape_, rotary_, added.positions, wide_, product_};
    run.each_token(gather_rows<T, std::int32_t, Weight>{outer.weight(outer_tensor::embedding),
                                                        tokens, stream});
    for (index_t layer = 0; layer < shape_.layer_count; ++layer) {
      layer_cache<T> const& cache = cache_.layer(layer);
      forward_layer(
          run, model.block(layer), a, stream, [&](matrix_view<T const> qkv, matrix_view<T> mixed) {
            run.each_token(store_heads<T>{cache, added, qkv});
            backend.executor().run(attention_worker_count,
                                   cached_attention<T>{cache, added, qkv, mixed, scratch_});
          });
    }
    auto const epsilon = static_cast<T>(shape_.norm_epsilon);
    backend.executor().run(wanted.size, gather_rows<T, index_t>{stream, wanted, hidden});
    auto const norm = wide_vector(backend, wide_, outer.vector(outer_tensor::final_norm));
    backend.executor().run(wanted.size, rms_norm<T>{hidden, norm, epsilon, hidden, {}, {}});
    run.project(hidden, model.head(), logits);
    return logits.row_block(0, wanted.size);
  }

 private:
  config shape_;
  key_value_cache<Backend> cache_;
  rotary_cache<Backend> rotary_;
  block_product<Backend> product_;
  arena<Backend> layer_memory_;
  arena<Backend> memory_;
  arena<Backend> scratch_memory_;
  widening<Backend> wide_;
  matrix_view<scalar_type> scratch_;
};

}  // namespace decoder
