// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// From the name of a tensor to its place in the model: layer, role, expert, or what it belongs to
// instead of a layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "lamina/core/error.hpp"
#include "lamina/layers/detail/name_words.hpp"
#include "lamina/layers/layer_set.hpp"

LAMINA_NAMESPACE_BEGIN

/// The part of a model that a tensor belongs to. mtp is a multi-token-prediction block, which many
/// checkpoints number as one more layer; vision and audio towers have layer numbers of their own.
enum class parameter_group : std::uint8_t {
  decoder_layer,
  embedding,
  final_norm,
  head,
  vision,
  audio,
  mtp,
  other,
};

/// The expert index of a tensor that is no single expert's.
inline constexpr index_t no_expert = -1;

/// Where a tensor sits.
struct parameter_place {
  parameter_group group = parameter_group::other;
  /// The decoder layer, or outside_layers. Of a stacked tensor: the layer of its first slice.
  index_t layer = outside_layers;
  /// `other` where the name does not say, and in vision, audio and mtp.
  parameter_role role = parameter_role::other;
  /// The expert, or no_expert (a tensor that stacks all experts has none).
  index_t expert = no_expert;
  /// Whether the leading axis counts layers: slice i is layer `layer` + i.
  bool stacked = false;

  friend constexpr bool operator==(parameter_place const&, parameter_place const&) = default;
};

/// What a name alone does not say.
struct name_options {
  /// Decoder layers of the model; a block numbered at or above is multi-token prediction.
  index_t layer_count = max_layers;
  /// The layer that number 0 in a name means: the first of this pipeline stage.
  index_t first_layer = 0;
};

namespace detail {

// The segments of a name between '.' or '/', wrappers left out.
class segment_reader {
 public:
  constexpr explicit segment_reader(name_text name) noexcept : rest_(name) {}

  // The next segment and the separator before it; false at the end.
  constexpr bool next(name_text& segment, char& separator) noexcept {
    bool after_adapter = false, after_base_model = false;
    while (!rest_.empty()) {
      std::size_t const end = rest_.find_first_of("./");
      segment = rest_.substr(0, end);
      separator = separator_;
      if (end != name_text::npos) separator_ = rest_[end];
      rest_ = end == name_text::npos ? name_text() : rest_.substr(end + 1);
      if (segment.empty() || is_one_of(segment, wrapper_words)) continue;
      if (after_adapter && segment == "default") {
        after_adapter = false;
      } else if (is_one_of(segment, adapter_words)) {
        after_adapter = true;
      } else if (segment == "base_model") {
        after_base_model = true;
      } else if (after_base_model && segment == "model") {
        after_base_model = false;
      } else {
        return true;
      }
    }
    return false;
  }

 private:
  name_text rest_;
  char separator_ = '.';
};

// More segments than any name has; what comes after them says nothing.
struct name_segments {
  static constexpr index_t capacity = 32;
  name_text at[capacity];
  index_t count = 0;

  constexpr explicit name_segments(name_text name) noexcept {
    segment_reader reader(name);
    char separator = '.';
    while (count < capacity && reader.next(at[count], separator)) ++count;
  }
};

// A number of at most nine digits, or -1.
constexpr index_t name_number(name_text digits) noexcept {
  if (digits.empty() || digits.size() > 9) return -1;
  index_t value = 0;
  for (char const c : digits) {
    if (c < '0' || c > '9') return -1;
    value = 10 * value + (c - '0');
  }
  return value;
}

// The number behind `prefix` in a word such as layers_3 or weight3, or -1.
constexpr index_t name_number_after(name_text word, name_text prefix) noexcept {
  return word.substr(0, prefix.size()) == prefix ? name_number(word.substr(prefix.size())) : -1;
}

constexpr name_text without_leaf_suffix(name_text word) noexcept {
  constexpr name_text suffixes[] = {"_weight", "_bias", "_blocks", "_scales"};
  for (name_text const suffix : suffixes) {
    if (word.size() > suffix.size() && word.substr(word.size() - suffix.size()) == suffix) {
      return word.substr(0, word.size() - suffix.size());
    }
  }
  return word;
}

constexpr parameter_role role_in_layer(name_segments const& name, index_t first) noexcept {
  enum { neither, attention, mlp } branch = neither;
  for (index_t i = first; i < name.count && branch == neither; ++i) {
    if (is_attention_branch(name.at[i])) {
      branch = attention;
    } else if (is_mlp_branch(name.at[i])) {
      branch = mlp;
    }
  }
  // T5: layer.0 is self-attention; layer.1 is cross-attention in a decoder, the MLP in an encoder.
  if (branch == neither && first + 1 < name.count && name.at[first] == "layer") {
    bool in_decoder = false;
    for (index_t i = 0; i < first; ++i) in_decoder |= name.at[i] == "decoder";
    index_t const part = name_number(name.at[first + 1]);
    branch = part == 0 || (part == 1 && in_decoder) ? attention : mlp;
  }
  for (index_t i = name.count - 1; i >= first; --i) {
    name_text const word = without_leaf_suffix(name.at[i]);
    for (name_word const& known : role_words) {
      if (word == known.word) return known.role;
    }
    for (branch_word const& known : branch_words) {
      if (word != known.word) continue;
      return branch == attention ? known.attention : branch == mlp ? known.mlp : known.neither;
    }
    // LitGPT's fused projection: attn.attn.
    if (word == "attn" && i > first && name.at[i - 1] == "attn") {
      return parameter_role::attention_qkv;
    }
  }
  return parameter_role::other;
}

constexpr index_t expert_in_layer(name_segments const& name, index_t first) noexcept {
  constexpr name_text numbered[] = {"experts", "local_experts", "ffn_gate", "ffn_up", "ffn_down"};
  bool grouped = false;
  for (index_t i = first; i + 1 < name.count; ++i) {
    if (!is_one_of(name.at[i], numbered)) continue;
    index_t const expert = name_number(name.at[i + 1]);
    if (expert >= 0) return expert;
    grouped |= name.at[i] == "experts";
  }
  if (!grouped) return no_expert;
  // Megatron's grouped experts: mlp.experts.linear_fc1.weight3.
  for (name_text const leaf : {"weight", "bias"}) {
    index_t const expert = name_number_after(name.at[name.count - 1], leaf);
    if (expert >= 0) return expert;
  }
  return no_expert;
}

constexpr parameter_place place_outside(name_segments const& name) noexcept {
  for (index_t i = 0; i < name.count; ++i) {
    name_text const word = name.at[i];
    if (is_one_of(word, embedding_words)) {
      return {.group = parameter_group::embedding, .role = parameter_role::embedding};
    }
    if (is_one_of(word, final_norm_words)) {
      return {.group = parameter_group::final_norm, .role = parameter_role::final_norm};
    }
    if (is_one_of(word, head_words)) {
      return {.group = parameter_group::head, .role = parameter_role::head};
    }
  }
  return {};
}

// The group that a segment before any layer number gives the whole name, or `other`.
constexpr parameter_group tower_of(name_segments const& name, index_t i) noexcept {
  name_text const word = name.at[i];
  bool const before_block = i == 0 && name.count > 1 && name.at[1] == "blk";  // GGUF: v.blk, a.blk
  if (word.substr(0, 3) == "mtp") return parameter_group::mtp;
  if (has_text(word, "audio") || (word == "a" && before_block)) return parameter_group::audio;
  if (has_text(word, "vision") || has_text(word, "visual") || is_one_of(word, vision_words) ||
      (word == "v" && before_block)) {
    return parameter_group::vision;
  }
  return parameter_group::other;
}

// The number of the block that segment i begins, or -1, and where the segments behind it begin.
struct numbered_block {
  index_t number = -1;
  index_t next = 0;
};
constexpr numbered_block block_at(name_segments const& name, index_t i) noexcept {
  for (name_text const word : block_words) {
    if (name.at[i] == word) {
      return {i + 1 < name.count ? name_number(name.at[i + 1]) : -1, i + 2};
    }
    if (name.at[i].size() > word.size() && name.at[i][word.size()] == '_') {
      index_t const number = name_number(name.at[i].substr(word.size() + 1));
      if (name.at[i].substr(0, word.size()) == word && number >= 0) return {number, i + 1};
    }
  }
  return {};
}

constexpr bool is_llm_c_stack(name_text word) noexcept {
  constexpr name_text words[] = {"ln1w", "ln1b", "qkvw", "qkvb",    "attprojw", "attprojb",
                                 "ln2w", "ln2b", "fcw",  "fcprojw", "fcb",      "fcprojb"};
  return is_one_of(word, words);
}

}  // namespace detail

/// The name without what training frameworks wrap around modules: `module`, `_orig_mod`,
/// `_fsdp_wrapped_module`, `_checkpoint_wrapped_module`, `_forward_module`, `base_model.model`,
/// `base_layer`, `lora_A.default` and its siblings, `original_module`, `modules_to_save.default`,
/// wherever they stand. Separators stay as they are; empty segments go.
inline std::string strip_wrappers(std::string_view name) {
  std::string stripped;
  detail::segment_reader reader(name);
  std::string_view segment;
  char separator = '.';
  while (reader.next(segment, separator)) {
    if (!stripped.empty()) stripped += separator;
    stripped += segment;
  }
  return stripped;
}

/// Where the tensor of this name sits, whatever ecosystem wrote the name: Hugging Face, GGUF, Meta,
/// TorchTitan, torchtune, nanoGPT, LitGPT, Megatron-Core, T5X, Flax, Gemma, MaxText, llm.c.
///
/// The layer is the number behind the first block word (layers, layer, h, blk, block, blocks; also
/// layers_3) that is not inside a vision, audio or multi-token-prediction part. Segments are
/// separated by '.' or '/'; wrappers count as not there (strip_wrappers). Encoders and decoders of
/// one model number their layers alike. A head tied to the embeddings has no name of its own.
///
/// Names are taken at their word where two models mean different things by one: dense_h_to_4h is
/// mlp_up, linear_fc1 is mlp_gate_up, post_attention_layernorm is mlp_norm.
///
/// Throws config_error unless 0 <= first_layer < layer_count <= max_layers. Any text is a name.
constexpr parameter_place parse_parameter_name(std::string_view text, name_options options = {}) {
  if (options.layer_count < 1 || options.layer_count > max_layers) {
    throw_config_error("parse_parameter_name: layer_count is ", options.layer_count,
                       ", expected 1..", max_layers);
  }
  if (options.first_layer < 0 || options.first_layer >= options.layer_count) {
    throw_config_error("parse_parameter_name: first_layer is ", options.first_layer,
                       ", expected 0..", options.layer_count - 1);
  }
  detail::name_segments const name(text);
  if (name.count == 0) return {};
  detail::numbered_block block;
  index_t stack = -1;
  for (index_t i = 0; i < name.count && block.number < 0; ++i) {
    parameter_group const tower = detail::tower_of(name, i);
    if (tower != parameter_group::other) return {.group = tower};
    block = detail::block_at(name, i);
    bool const last = i + 1 == name.count;
    if (stack < 0 && !last && detail::is_one_of(name.at[i], detail::stack_words)) stack = i;
  }
  for (detail::name_text const word : name.at) {
    if (detail::is_one_of(word, detail::mtp_words)) return {.group = parameter_group::mtp};
  }
  if (block.number >= 0) {
    index_t const layer = options.first_layer + block.number;
    if (layer >= options.layer_count) return {.group = parameter_group::mtp};
    return {.group = parameter_group::decoder_layer,
            .layer = layer,
            .role = detail::role_in_layer(name, block.next),
            .expert = detail::expert_in_layer(name, block.next)};
  }
  bool const is_llm_c = name.count == 1 && detail::is_llm_c_stack(name.at[0]);
  if (stack >= 0 || is_llm_c) {
    index_t const first = is_llm_c ? 0 : stack + 1;
    return {.group = parameter_group::decoder_layer,
            .layer = options.first_layer,
            .role = detail::role_in_layer(name, first),
            .expert = detail::expert_in_layer(name, first),
            .stacked = true};
  }
  return detail::place_outside(name);
}

LAMINA_NAMESPACE_END
