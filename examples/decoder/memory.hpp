// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What this host allocates, said once: the workspace is laid out by it, and lamina::plan_memory
// counts with it.
#pragma once

#include "examples/decoder/attention.hpp"
#include "examples/decoder/config.hpp"
#include "lamina/layers/memory_plan.hpp"

namespace decoder {

/// The shape as lamina::plan_memory and lamina::count_flops want it.
constexpr lamina::transformer_shape transformer_shape(config const& shape) {
  return {.layer_count = shape.layer_count,
          .width = shape.width,
          .query_width = shape.query_width(),
          .key_width = shape.key_width(),
          .head_count = shape.head_count,
          .ffn_width = shape.ffn_width,
          .vocab = shape.vocab,
          .tied_head = shape.tied_head,
          .qkv_bias = shape.qkv_bias,
          .qk_norm = shape.qk_norm};
}

/// Numbers that activations take, all in the model's scalar type. A layer that keeps anything keeps
/// everything.
///
/// longest  tokens of the longest sequence, which decides the scratch; 0 to leave it out
constexpr lamina::host_activations activation_sizes(config const& shape, index_t longest = 0) {
  index_t const d = shape.width, q = shape.query_width(), f = shape.ffn_width;
  // Normalised inputs, heads, attention output, gate and up, their product.
  index_t const working = 2 * d + shape.qkv_width() + q + 3 * f;
  // Residual streams with their inverse norms, log-sums of the attention, heads before their norm.
  index_t const kept =
      2 * d + 2 + shape.head_count +
      (shape.qk_norm ? q + shape.key_width() + shape.head_count + shape.kv_head_count : 0);
  index_t const rotary = longest * shape.head_width;
  index_t const attention_scratch =
      attention_worker_count * attention_backward<float>::scratch_size(shape, longest);
  return {.saved = working + kept,
          .working = working,
          .gradients = working,
          .outside = d,
          .outside_logit_row = 2 * d + 1,
          .scratch = rotary + attention_scratch,
          .phases_overlap = true};
}

}  // namespace decoder
