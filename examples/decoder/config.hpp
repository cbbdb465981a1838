// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shape of a decoder of the Llama, Qwen2 and Qwen3 family.
#pragma once

#include "examples/decoder/rope_scaling.hpp"
#include "lamina/core/error.hpp"
#include "lamina/core/scalar.hpp"
#include "lamina/layers/layer_set.hpp"

namespace decoder {

/// What the weights look like. Llama: as it stands; Qwen2: qkv_bias; Qwen3: qk_norm.
///
/// kv_head_count  key/value heads, each shared by head_count / kv_head_count query heads
/// tied_head      the head is the embedding matrix
/// qkv_bias       query, key and value projections have a bias
/// qk_norm        every query and key head is RMS-normalised before it is rotated
struct config {
  index_t layer_count = 8;
  index_t width = 32;
  index_t head_count = 2;
  index_t kv_head_count = 2;
  index_t head_width = 16;
  index_t ffn_width = 64;
  index_t vocab = 12;
  double rope_theta = 1000;
  double norm_epsilon = 1e-6;
  bool tied_head = false;
  bool qkv_bias = false;
  bool qk_norm = false;
  rope_scaling rope{};

  LAMINA_HOST_DEVICE constexpr index_t query_width() const { return head_count * head_width; }
  LAMINA_HOST_DEVICE constexpr index_t key_width() const { return kv_head_count * head_width; }
  /// Columns of the stacked projection: queries, then keys, then values.
  LAMINA_HOST_DEVICE constexpr index_t qkv_width() const { return query_width() + 2 * key_width(); }

  friend bool operator==(config const&, config const&) = default;
};

/// Throws config_error naming the first field that makes no sense.
inline void check(config const& shape) {
  auto const within = [](char const* field, index_t value, index_t limit) {
    if (value < 1 || value > limit) {
      lamina::throw_config_error("decoder::config: ", field, " is ", value, ", expected 1..",
                                 limit);
    }
  };
  index_t const widest = index_t{1} << 20;
  within("layer_count", shape.layer_count, lamina::max_layers);
  within("width", shape.width, widest);
  within("head_count", shape.head_count, 1024);
  within("kv_head_count", shape.kv_head_count, shape.head_count);
  within("head_width", shape.head_width, 1024);
  within("ffn_width", shape.ffn_width, widest);
  within("vocab", shape.vocab, index_t{1} << 24);
  if (shape.head_count % shape.kv_head_count != 0) {
    lamina::throw_config_error("decoder::config: kv_head_count is ", shape.kv_head_count,
                               ", expected a divisor of head_count ", shape.head_count);
  }
  if (shape.head_width % 2 != 0) {
    lamina::throw_config_error("decoder::config: head_width is ", shape.head_width,
                               ", expected an even number (rotary pairs)");
  }
  auto const positive = [](char const* field, double value) {
    if (!lamina::is_finite(value) || value <= 0) {
      lamina::throw_config_error("decoder::config: ", field, " is ", value,
                                 ", expected a finite number > 0");
    }
  };
  positive("rope_theta", shape.rope_theta);
  positive("norm_epsilon", shape.norm_epsilon);
  positive("rope.factor", shape.rope.factor);
  positive("rope.original_length", shape.rope.original_length);
  positive("rope.slow", shape.rope.slow);
  positive("rope.fast", shape.rope.fast);
  positive("rope.magnitude", shape.rope.magnitude);
  if (shape.rope.slow >= shape.rope.fast) {
    lamina::throw_config_error("decoder::config: rope.slow is ", shape.rope.slow,
                               ", expected less than rope.fast = ", shape.rope.fast);
  }
  for (index_t i = 0; i < shape.head_width / 2; ++i) {
    double const frequency = rope_frequency(shape.rope, shape.rope_theta, shape.head_width, i);
    if (!lamina::is_finite(frequency)) {
      lamina::throw_config_error("decoder::config: rotary frequency ", i, " is ", frequency,
                                 ", expected a finite number: rope_theta is ", shape.rope_theta,
                                 ", rope.factor ", shape.rope.factor);
    }
  }
}

/// The same for a shape that a file states: throws format_error that names the file as well.
inline void check_in_file(config const& shape, std::string_view file) {
  try {
    check(shape);
  } catch (lamina::config_error const& error) {
    lamina::throw_format_error("'", file, "': ", error.what());
  }
}

}  // namespace decoder
