// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The attention of a whole batch, forward and backward, with the bodies that suit the backend.
#pragma once

#include "examples/decoder/attention.hpp"
#include "examples/decoder/device/attend.hpp"
#include "examples/decoder/placed_batch.hpp"
#include "examples/decoder/workspace.hpp"

namespace decoder {

/// On a host: a few workers with scratch memory of their own.
///
/// Weight  what the weights of the model are stored in
template <lamina::tensor_backend Backend, class Weight = typename Backend::scalar_type>
class batch_attention {
 public:
  using T = typename Backend::scalar_type;

  explicit batch_attention(Backend const& backend) : scratch_(backend) {}

  /// See attention.
  void forward(Backend const& backend, config const& shape, host_batch const& batch,
               matrix_view<T const> qkv, matrix_view<T> mixed, matrix_view<T> log_sums) {
    auto const scratch = reset(backend, attention<T>::scratch_size(shape, batch.longest()));
    backend.executor().run(attention_worker_count,
                           attention<T>{{&shape, batch.offsets()}, qkv, mixed, log_sums, scratch});
  }

  /// See attention_backward.
  template <class Activations>
  void backward(Backend const& backend, config const& shape, host_batch const& batch,
                Activations const& saved, matrix_view<T const> d_mixed, matrix_view<T> d_qkv) {
    auto const scratch =
        reset(backend, attention_backward<T>::scratch_size(shape, batch.longest()));
    backend.executor().run(
        attention_worker_count,
        attention_backward<T>{
            {&shape, batch.offsets()}, saved.qkv, saved.log_sums, d_mixed, d_qkv, scratch});
  }

 private:
  matrix_view<T> reset(Backend const& backend, index_t size) {
    scratch_.reset(backend, attention_worker_count * size);
    return scratch_.take(attention_worker_count, size);
  }

  arena<Backend> scratch_;
};

/// On a device: tiles in shared memory.
template <lamina::device_backend Backend, class Weight>
class batch_attention<Backend, Weight> {
 public:
  using T = typename Backend::scalar_type;

  explicit batch_attention(Backend const& backend) : scratch_(backend) {}

  /// See attention_arguments.
  void forward(Backend const& backend, config const& shape, device_batch<Backend> const& batch,
               matrix_view<T const> qkv, matrix_view<T> mixed, matrix_view<T> log_sums) {
    index_t const q = shape.query_width(), k = shape.key_width();
    attend::forward(backend,
                    {attend::tiling(shape), blocks(shape, batch).queries, qkv, columns(qkv, q, k),
                     columns(qkv, q + k, k), batch.positions(), mixed, log_sums});
  }

  /// See attention_gradients.
  template <class Activations>
  void backward(Backend const& backend, config const& shape, device_batch<Backend> const& batch,
                Activations const& saved, matrix_view<T const> d_mixed, matrix_view<T> d_qkv) {
    scratch_.reset(backend, saved.log_sums.rows * saved.log_sums.cols);
    matrix_view<T> const products = scratch_.take(saved.log_sums.rows, shape.head_count);
    auto const [queries, keys] = blocks(shape, batch);
    attend::backward(
        backend, shape,
        {attend::tiling(shape), saved.qkv, saved.mixed, saved.log_sums, d_mixed, products, d_qkv},
        queries, keys);
  }

 private:
  using attend = device_attention<Backend, Weight>;

  static attention_blocks blocks(config const& shape, device_batch<Backend> const& batch) {
    return attend::rounds(shape) ? batch.narrow_blocks() : batch.blocks();
  }

  arena<Backend> scratch_;
};

}  // namespace decoder
