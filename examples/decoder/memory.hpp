// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What this host allocates, said once: the workspace is laid out by it, and lamina::plan_memory
// counts with it.
#pragma once

#include <algorithm>

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

/// Numbers that activations take on a host, all in the model's scalar type.
///
/// longest  tokens of the longest sequence, which decides the scratch; 0 to leave it out
constexpr lamina::host_activations activation_sizes(config const& shape, index_t longest = 0) {
  index_t const d = shape.width, q = shape.query_width(), f = shape.ffn_width;
  index_t const qkv = shape.qkv_width(), heads = shape.head_count;
  index_t const head_norm = shape.qk_norm ? q + shape.key_width() + heads + shape.kv_head_count : 0;
  // The two branches of a layer share their memory.
  index_t const branch = qkv + q > 3 * f ? qkv + q : 3 * f;
  index_t const rotary = longest * shape.head_width;
  index_t const attention_scratch =
      attention_worker_count * std::max(attention<float>::scratch_size(shape, longest),
                                        attention_backward<float>::scratch_size(shape, longest));
  return {.saved = {.mlp_inner = 2 * f,
                    .mlp_input = d + 1,
                    .attention_inner = qkv + heads + head_norm,
                    .attention_input = d + 1,
                    .down = f,
                    .gate_up = d,
                    .output = q,
                    .qkv = d},
          .working = d + branch,
          .gradients = 2 * d + branch,
          .gradients_in_working = true,
          .outside = d,
          .outside_logit_row = 2 * d + 1,
          .scratch = rotary + attention_scratch,
          .phases_overlap = true};
}

/// The same on a device, for training decoder layers whose weights are bf16, where the backend
/// multiplies these as they are, with logits of at least as many numbers as gate and up projections
/// have. There is no scratch for the attention but the products D, and its output is kept wherever
/// the backward pass goes through it; both factors of a product are rounded to bf16 before.
constexpr lamina::host_activations device_activation_sizes(config const& shape,
                                                           index_t longest = 0) {
  lamina::host_activations a = activation_sizes(shape);
  index_t const d = shape.width, q = shape.query_width(), f = shape.ffn_width;
  index_t const attention = shape.qkv_width() + q;
  a.saved.attention_inner += q;
  a.saved.output = 0;
  a.saved.down = f / 2;
  a.saved.gate_up = a.saved.qkv = d / 2;
  a.working = d / 2 + std::max(attention, 2 * f + f / 2);
  a.gradients = 2 * d + std::max(attention, 2 * f);
  a.outside += shape.head_count + q / 2;   // D; the inputs of a product
  a.outside_logit_row += shape.vocab / 2;  // the gradients of its outputs
  a.scratch = longest * shape.head_width;
  return a;
}

}  // namespace decoder
