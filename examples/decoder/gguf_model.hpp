// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A Llama, Qwen2 or Qwen3 model in a GGUF file: its shape, and what its tensors are called.
#pragma once

#include <cmath>

#include "examples/decoder/config.hpp"
#include "examples/decoder/gguf.hpp"

namespace decoder {

namespace detail {

// Llama 3's frequencies come as a tensor of divisors. The last is the factor, and the other
// constants are the same in all of its models; whether they are is checked.
inline rope_scaling llama3_rope(gguf const& file, stored_tensor const& divisors, config shape) {
  shape.rope = {.kind = rope_kind::llama3, .original_length = 8192, .slow = 1, .fast = 4};
  std::vector<double> values(static_cast<std::size_t>(shape.head_width / 2));
  auto const count = static_cast<index_t>(values.size());
  if (divisors.shape != std::vector{count}) {
    lamina::throw_format_error("decoder::gguf: '", file.file(), "' has 'rope_freqs.weight' of ",
                               lamina::element_count(divisors.shape),
                               " elements, expected head_width / 2 = ", count);
  }
  decode_stored(divisors.type, divisors.bytes.data(), vector_view<double>(values));
  shape.rope.factor = values.back();
  for (index_t i = 0; i < count; ++i) {
    double const divisor = values[static_cast<std::size_t>(i)];
    double const expected = rope_frequency({}, shape.rope_theta, shape.head_width, i) /
                            rope_frequency(shape.rope, shape.rope_theta, shape.head_width, i);
    if (!(std::abs(divisor - expected) <= 1e-5 * expected)) {
      lamina::throw_format_error("decoder::gguf: '", file.file(), "' has 'rope_freqs.weight'[", i,
                                 "] = ", divisor, ", expected ", expected,
                                 " as in Llama 3 with factor ", shape.rope.factor);
    }
  }
  return shape.rope;
}

inline rope_scaling gguf_rope(gguf const& file, std::string const& prefix, config const& shape) {
  stored_tensor const* const divisors = file.find_tensor("rope_freqs.weight");
  std::string const scaling = prefix + "rope.scaling.";
  std::string kind = "none";
  if (file.has(scaling + "type")) kind = file.text(scaling + "type");
  if (divisors != nullptr && kind == "none") return llama3_rope(file, *divisors, shape);
  rope_scaling rope;
  if (kind == "linear" || kind == "yarn") {
    rope.kind = kind == "yarn" ? rope_kind::yarn : rope_kind::linear;
    rope.factor = file.number(scaling + "factor");
  } else if (kind != "none") {
    lamina::throw_format_error("decoder::gguf: '", file.file(), "' has '", scaling, "type' = '",
                               kind, "', expected none, linear or yarn");
  }
  if (rope.kind == rope_kind::yarn) {
    rope.original_length = static_cast<double>(file.integer(scaling + "original_context_length"));
    rope.magnitude = rope.factor > 1 ? 1 + 0.1 * std::log(rope.factor) : 1;
  }
  for (std::string_view const key : file.keys()) {
    if (!key.starts_with(scaling)) continue;
    std::string_view const name = key.substr(scaling.size());
    if (name != "type" && name != "factor" && name != "original_context_length" &&
        name != "finetuned") {
      lamina::throw_format_error("decoder::gguf: '", file.file(), "' has '", key,
                                 "', which is not supported");
    }
  }
  return rope;
}

}  // namespace detail

/// Whether the rows of each query and key head are in the order of ggml's rotation, which turns
/// neighbours: row 2 i + s of the file is row s head_width / 2 + i of a head. So are Llama's.
inline bool has_interleaved_heads(gguf const& file) {
  return file.text("general.architecture") == "llama";
}

/// The shape of a model. Throws format_error naming the file, the key, its value and what was
/// expected if the architecture is not llama, qwen2 or qwen3, or if it uses what the decoder does
/// not have.
inline config gguf_config(gguf const& file) {
  std::string const architecture(file.text("general.architecture"));
  std::string const prefix = architecture + ".";
  auto const refuse = [&](std::string_view key, auto const& value, auto const&... expected) {
    lamina::throw_format_error("decoder::gguf: '", file.file(), "' has '", key, "' = ", value,
                               ", expected ", expected...);
  };
  if (architecture != "llama" && architecture != "qwen2" && architecture != "qwen3") {
    refuse("general.architecture", "'" + architecture + "'", "llama, qwen2 or qwen3");
  }
  auto const integer = [&](char const* key, index_t otherwise) {
    return file.has(prefix + key) ? file.integer(prefix + key) : otherwise;
  };
  auto const must_be = [&](char const* key, index_t expected) {
    index_t const value = integer(key, expected);
    if (value != expected) refuse(prefix + key, value, expected);
  };
  stored_tensor const* const embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr) {
    lamina::throw_format_error("decoder::gguf: '", file.file(),
                               "' has no tensor 'token_embd.weight'");
  }
  config shape;
  shape.layer_count = file.integer(prefix + "block_count");
  shape.width = file.integer(prefix + "embedding_length");
  shape.ffn_width = file.integer(prefix + "feed_forward_length");
  shape.head_count = file.integer(prefix + "attention.head_count");
  shape.kv_head_count = integer("attention.head_count_kv", shape.head_count);
  shape.head_width =
      integer("attention.key_length", shape.head_count > 0 ? shape.width / shape.head_count : 0);
  shape.vocab = embedding->shape.front();
  shape.norm_epsilon = file.number(prefix + "attention.layer_norm_rms_epsilon");
  shape.rope_theta =
      file.has(prefix + "rope.freq_base") ? file.number(prefix + "rope.freq_base") : 10000;
  shape.tied_head = file.find_tensor("output.weight") == nullptr;
  shape.qkv_bias = architecture == "qwen2";
  shape.qk_norm = architecture == "qwen3";
  must_be("attention.value_length", shape.head_width);
  must_be("rope.dimension_count", shape.head_width);
  must_be("vocab_size", shape.vocab);
  must_be("expert_count", 0);
  must_be("attention.sliding_window", 0);
  check_in_file(shape, file.file());
  shape.rope = detail::gguf_rope(file, prefix, shape);
  check_in_file(shape, file.file());
  return shape;
}

/// What the file calls a tensor that Hugging Face calls `name`.
inline std::string gguf_name(std::string_view name) {
  constexpr std::string_view names[][2] = {
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"},
      {"input_layernorm.weight", "attn_norm.weight"},
      {"self_attn.q_proj.weight", "attn_q.weight"},
      {"self_attn.k_proj.weight", "attn_k.weight"},
      {"self_attn.v_proj.weight", "attn_v.weight"},
      {"self_attn.q_proj.bias", "attn_q.bias"},
      {"self_attn.k_proj.bias", "attn_k.bias"},
      {"self_attn.v_proj.bias", "attn_v.bias"},
      {"self_attn.q_norm.weight", "attn_q_norm.weight"},
      {"self_attn.k_norm.weight", "attn_k_norm.weight"},
      {"self_attn.o_proj.weight", "attn_output.weight"},
      {"post_attention_layernorm.weight", "ffn_norm.weight"},
      {"mlp.gate_proj.weight", "ffn_gate.weight"},
      {"mlp.up_proj.weight", "ffn_up.weight"},
      {"mlp.down_proj.weight", "ffn_down.weight"},
  };
  constexpr std::string_view layers = "model.layers.";
  std::string result;
  if (name.starts_with(layers)) {
    name.remove_prefix(layers.size());
    std::size_t const number = name.find('.') + 1;
    result = "blk." + std::string(name.substr(0, number));
    name.remove_prefix(number);
  }
  for (auto const& pair : names) {
    if (pair[0] == name) return result.append(pair[1]);
  }
  return result.append(name);
}

}  // namespace decoder
