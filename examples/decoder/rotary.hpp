// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What happens to query and key heads between their projection and the attention: bias, optional
// normalisation (Qwen3), rotation by position.
#pragma once

#include <cmath>

#include "examples/decoder/config.hpp"
#include "examples/decoder/rows.hpp"

namespace decoder {

/// cosine[p, i], sine[p, i] of p rope_frequency(i), times rope.magnitude: one row of the rotary
/// table.
template <real T>
struct rotary_table {
  config shape;
  matrix_view<T> cosine;
  matrix_view<T> sine;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t position) const {
    rope_scaling const& rope = shape.rope;
    lamina::for_each_element(lanes, 0, cosine.cols, [=, this](index_t i) {
      double const angle = static_cast<double>(position) *
                           rope_frequency(rope, shape.rope_theta, shape.head_width, i);
      cosine(position, i) = static_cast<T>(rope.magnitude * std::cos(angle));
      sine(position, i) = static_cast<T>(rope.magnitude * std::sin(angle));
    });
  }
};

/// Rotation of the pairs (i, i + head_width / 2) of a head, the convention of Hugging Face.
template <real T>
struct rotation {
  T const* cosine;
  T const* sine;
  index_t half;

  LAMINA_HOST_DEVICE void forward(T* head, index_t i) const {
    T const low = head[i], high = head[i + half];
    head[i] = low * cosine[i] - high * sine[i];
    head[i + half] = high * cosine[i] + low * sine[i];
  }
  LAMINA_HOST_DEVICE void backward(T* d_head, index_t i) const {
    T const low = d_head[i], high = d_head[i + half];
    d_head[i] = low * cosine[i] + high * sine[i];
    d_head[i + half] = high * cosine[i] - low * sine[i];
  }
};

/// Adds the bias, normalises and rotates the heads of one token, in place.
///
/// qkv            [tokens, qkv_width]  projections in, heads out; values only get their bias
/// positions      [tokens]             place of each token in its sequence
/// bias           [qkv_width]          or empty
/// query_norm, key_norm  [head_width]  or empty
/// kept           [tokens, query_width + key_width]  heads before the norm, or empty
/// inverse_rms    [tokens, heads + kv heads]         of each head, or empty
template <real T>
struct rotate_heads {
  config shape;
  matrix_view<T> qkv;
  vector_view<index_t const> positions;
  matrix_view<T const> cosine;
  matrix_view<T const> sine;
  vector_view<T const> bias;
  vector_view<T const> query_norm;
  vector_view<T const> key_norm;
  matrix_view<T> kept;
  matrix_view<T> inverse_rms;

  // A lane works pairs (i, i + half) from the bias to the rotation, so no lane reads what another
  // one wrote.
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const width = shape.head_width;
    index_t const half = width / 2;
    index_t const head_count = shape.head_count + shape.kv_head_count;
    rotation<T> const turn{cosine.row(positions[row]).data, sine.row(positions[row]).data, half};
    T* const x = qkv.row(row).data;
    for (index_t index = 0; index < head_count; ++index) {
      T* const head = x + index * width;
      if (!bias.empty()) {
        T const* const b = bias.data + index * width;
        lamina::for_each_element(lanes, 0, half, [=](index_t i) {
          head[i] += b[i];
          head[i + half] += b[i + half];
        });
      }
      if (!query_norm.empty()) normalize(lanes, row, index, head, half);
      lamina::for_each_element(lanes, 0, half, [=](index_t i) { turn.forward(head, i); });
    }
    if (!bias.empty()) {
      T const* const b = bias.data;
      lamina::for_each_element(lanes, head_count * width, qkv.cols,
                               [=](index_t i) { x[i] += b[i]; });
    }
  }

 private:
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void normalize(Lanes lanes, index_t row, index_t index, T* head,
                                    index_t half) const {
    T const* const w = index < shape.head_count ? query_norm.data : key_norm.data;
    T const square = lanes.sum(lamina::lane_sum<T>(lanes, 0, half, [=](index_t i) {
      return head[i] * head[i] + head[i + half] * head[i + half];
    }));
    T const epsilon = static_cast<T>(shape.norm_epsilon);
    T const inverse = T(1) / std::sqrt(square / static_cast<T>(2 * half) + epsilon);
    if (kept.data != nullptr) {
      T* const copy = kept.row(row).data + index * 2 * half;
      lamina::for_each_element(lanes, 0, half, [=](index_t i) {
        copy[i] = head[i];
        copy[i + half] = head[i + half];
      });
      if (lanes.lane() == 0) inverse_rms(row, index) = inverse;
    }
    lamina::for_each_element(lanes, 0, half, [=](index_t i) {
      head[i] *= inverse * w[i];
      head[i + half] *= inverse * w[i + half];
    });
  }
};

/// Undoes the rotation of d_qkv in place: from gradients of rotated heads to gradients of the heads
/// before the rotation.
template <real T>
struct rotate_heads_backward {
  config shape;
  matrix_view<T> d_qkv;
  vector_view<index_t const> positions;
  matrix_view<T const> cosine;
  matrix_view<T const> sine;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const half = shape.head_width / 2;
    rotation<T> const turn{cosine.row(positions[row]).data, sine.row(positions[row]).data, half};
    for (index_t index = 0; index < shape.head_count + shape.kv_head_count; ++index) {
      T* const d_head = d_qkv.row(row).data + index * 2 * half;
      lamina::for_each_element(lanes, 0, half, [=](index_t i) { turn.backward(d_head, i); });
    }
  }
};

/// Takes d_qkv through the norm of each query and key head, in place.
template <real T>
struct head_norm_backward {
  config shape;
  matrix_view<T const> kept;
  matrix_view<T const> inverse_rms;
  vector_view<T const> query_norm;
  vector_view<T const> key_norm;
  matrix_view<T> d_qkv;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const width = shape.head_width;
    for (index_t index = 0; index < shape.head_count + shape.kv_head_count; ++index) {
      T const* const x = kept.row(row).data + index * width;
      T const* const w = index < shape.head_count ? query_norm.data : key_norm.data;
      T* const d = d_qkv.row(row).data + index * width;
      T const inverse = inverse_rms(row, index);
      T const product = lanes.sum(
          lamina::lane_sum<T>(lanes, 0, width, [=](index_t c) { return w[c] * d[c] * x[c]; }));
      T const shrink = product * inverse * inverse * inverse / static_cast<T>(width);
      lamina::for_each_element(lanes, 0, width,
                               [=](index_t c) { d[c] = w[c] * d[c] * inverse - x[c] * shrink; });
    }
  }
};

/// Gradient of a query or key norm: summed over tokens and the heads [first_head, first_head +
/// head_count), all of which share it. Run over column blocks.
template <real T, index_t Columns>
struct head_norm_weight_gradient {
  index_t first_head;
  index_t head_count;
  matrix_view<T const> kept;
  matrix_view<T const> inverse_rms;
  matrix_view<T const> d_qkv;
  vector_view<T> d_weight;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t block) const {
    index_t const width = d_weight.size;
    sum_column_block<Columns, T>(
        lanes, block, kept.rows * head_count, d_weight, [=, this](index_t r, index_t c) {
          index_t const token = r / head_count, head = first_head + r % head_count;
          index_t const column = head * width + c;
          return d_qkv(token, column) * kept(token, column) * inverse_rms(token, head);
        });
  }
};

}  // namespace decoder
