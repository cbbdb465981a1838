// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shape of a Llama, Qwen2 or Qwen3 model from the config.json of Hugging Face.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "examples/decoder/config.hpp"
#include "lamina/io/atomic_file.hpp"
#include "lamina/io/json.hpp"

namespace decoder {

namespace detail {

// Members of a config.json. Absent and null are the same, as in Hugging Face.
class hf_reader {
 public:
  explicit hf_reader(lamina::json_view root) : root_(std::move(root)) {}

  lamina::json_view at(char const* key) const { return root_.at(key); }
  std::optional<lamina::json_view> find(char const* key) const { return root_.find(key); }
  nlohmann::json::object_t const& members() const { return root_.object(); }

  index_t integer(char const* key) const { return at(key).integer(); }
  index_t integer(char const* key, index_t otherwise) const {
    auto const value = find(key);
    return value ? value->integer() : otherwise;
  }
  double number(char const* key, double otherwise) const {
    auto const value = find(key);
    return value ? value->number() : otherwise;
  }
  bool flag(char const* key, bool otherwise = false) const {
    auto const value = find(key);
    return value ? value->boolean() : otherwise;
  }

  /// A member that must be `expected` where it is there: nothing else is supported.
  void expect(char const* key, bool expected) const {
    if (flag(key, expected) != expected) {
      refuse(*find(key), expected ? "false" : "true", expected ? "true" : "false");
    }
  }
  void expect(char const* key, double expected) const {
    if (double const value = number(key, expected); value != expected) {
      refuse(*find(key), lamina::detail::text_of(value), lamina::detail::text_of(expected));
    }
  }
  void expect(char const* key, char const* expected) const {
    if (auto const value = find(key)) expect(*value, expected);
  }
  static void expect(lamina::json_view const& value, std::string_view expected) {
    if (value.text() != expected) refuse(value, "'" + value.text() + "'", expected);
  }

  [[noreturn]] static void refuse(lamina::json_view const& value, std::string_view is,
                                  std::string_view expected) {
    lamina::throw_format_error("decoder::hf_config: ", value.where(), " is ", is, ", expected ",
                               expected);
  }

 private:
  lamina::json_view root_;
};

// rope_parameters, in older files rope_scaling, whose theta then stands beside it.
// Source: Hugging Face transformers, modeling_rope_utils.py.
inline void read_rope(hf_reader const& file, config& shape) {
  shape.rope_theta = file.number("rope_theta", 10000);
  file.expect("partial_rotary_factor", 1.0);
  auto const found =
      file.find("rope_scaling") ? file.find("rope_scaling") : file.find("rope_parameters");
  if (!found) return;
  hf_reader const rope(*found);
  for (auto const& [key, value] : rope.members()) {
    constexpr std::string_view known[] = {"rope_type",
                                          "type",
                                          "rope_theta",
                                          "factor",
                                          "low_freq_factor",
                                          "high_freq_factor",
                                          "beta_fast",
                                          "beta_slow",
                                          "mscale",
                                          "mscale_all_dim",
                                          "truncate",
                                          "attention_factor",
                                          "finetuned",
                                          "partial_rotary_factor",
                                          "original_max_position_embeddings"};
    if (std::find(std::begin(known), std::end(known), key) == std::end(known)) {
      lamina::throw_format_error("decoder::hf_config: ", found->where(), " has the member '",
                                 key.substr(0, 100), "', which is not supported");
    }
  }
  shape.rope_theta = rope.number("rope_theta", shape.rope_theta);
  rope.expect("partial_rotary_factor", 1.0);
  auto const type = rope.find("rope_type") ? rope.find("rope_type") : rope.find("type");
  std::string const kind = type ? type->text() : "default";
  if (kind == "default") return;
  shape.rope.factor = rope.at("factor").number();
  if (kind == "linear") {
    shape.rope.kind = rope_kind::linear;
    return;
  }
  if (kind != "llama3" && kind != "yarn") {
    hf_reader::refuse(*type, "'" + kind + "'", "default, linear, llama3 or yarn");
  }
  auto length = file.find("original_max_position_embeddings");
  if (!length) length = rope.find("original_max_position_embeddings");
  if (!length) length = file.at("max_position_embeddings");
  shape.rope.original_length = length->number();
  if (kind == "llama3") {
    shape.rope.kind = rope_kind::llama3;
    shape.rope.slow = rope.at("low_freq_factor").number();
    shape.rope.fast = rope.at("high_freq_factor").number();
    return;
  }
  shape.rope.kind = rope_kind::yarn;
  shape.rope.slow = rope.number("beta_slow", 1);
  shape.rope.fast = rope.number("beta_fast", 32);
  shape.rope.whole_pairs = rope.flag("truncate", true);
  double const growth = shape.rope.factor > 1 ? 0.1 * std::log(shape.rope.factor) : 0;
  double const scale = rope.number("mscale", 0), of_all = rope.number("mscale_all_dim", 0);
  bool const both = scale != 0 && of_all != 0;
  double const inferred = both ? (scale * growth + 1) / (of_all * growth + 1) : growth + 1;
  shape.rope.magnitude = rope.number("attention_factor", inferred);
}

// Windows of attention that some layers of Qwen may have.
inline void refuse_sliding_windows(hf_reader const& file, config const& shape) {
  if (auto const types = file.find("layer_types")) {
    for (index_t i = 0; i < static_cast<index_t>(types->array().size()); ++i) {
      hf_reader::expect(types->at(i), "full_attention");
    }
  } else if (file.find("sliding_window") &&
             file.integer("max_window_layers", 28) < shape.layer_count) {
    file.expect("use_sliding_window", false);
  }
}

}  // namespace detail

/// The shape that the text of a config.json states. A member that changes the computation and is
/// not supported is an error; what concerns training, generation or storage is not looked at.
///
/// source  what errors call the text
/// Throws format_error naming the source, the member, its value and what was expected.
inline config parse_hf_config(std::string_view text, std::string_view source) {
  nlohmann::json const document = lamina::parse_json(text, source);
  detail::hf_reader const file(lamina::json_view(document, source));
  auto const architectures = file.at("architectures");
  auto const architecture = architectures.at(index_t{0});
  std::string const& name = architecture.text();
  bool const llama = name == "LlamaForCausalLM", qwen2 = name == "Qwen2ForCausalLM";
  bool const qwen3 = name == "Qwen3ForCausalLM";
  if (!llama && !qwen2 && !qwen3) {
    detail::hf_reader::refuse(architecture, "'" + name + "'",
                              "LlamaForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM");
  }
  config shape;
  shape.layer_count = file.integer("num_hidden_layers");
  shape.width = file.integer("hidden_size");
  shape.head_count = file.integer("num_attention_heads");
  shape.kv_head_count = llama ? file.integer("num_key_value_heads", shape.head_count)
                              : file.integer("num_key_value_heads");
  index_t const even_share = shape.head_count > 0 ? shape.width / shape.head_count : 0;
  shape.head_width = file.integer("head_dim", qwen3 ? 128 : even_share);
  shape.ffn_width = file.integer("intermediate_size");
  shape.vocab = file.integer("vocab_size");
  shape.norm_epsilon = file.at("rms_norm_eps").number();
  shape.tied_head = file.flag("tie_word_embeddings");
  shape.qkv_bias = qwen2;
  shape.qk_norm = qwen3;
  file.expect("hidden_act", "silu");
  if (!qwen2) file.expect("attention_bias", false);
  if (llama) file.expect("mlp_bias", false);
  if (auto const quantized = file.find("quantization_config")) {
    detail::hf_reader::refuse(*quantized, "there", "weights that are not quantized");
  }
  detail::read_rope(file, shape);
  if (!llama) detail::refuse_sliding_windows(file, shape);
  check_in_file(shape, source);
  return shape;
}

/// The same from a file. Throws io_error if it cannot be read.
inline config read_hf_config(std::string const& path) {
  return parse_hf_config(lamina::read_file(path), path);
}

}  // namespace decoder
