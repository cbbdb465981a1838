// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tokenizer that a GGUF file describes in its metadata.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "examples/decoder/tokenizer.hpp"

namespace decoder {

/// The fields tokenizer.* of a GGUF file, as they stand there; what the file lacks stays empty.
///
/// model          .ggml.model: "gpt2" is byte-level BPE
/// pre            .ggml.pre: the name of the pre-tokenizer
/// tokens         .ggml.tokens, by id
/// merges         .ggml.merges: "left right", best first
/// token_types    .ggml.token_type, one a token or none at all
/// bos_id, eos_id, padding_id  .ggml.{bos,eos,padding}_token_id
/// add_bos, add_eos            .ggml.add_{bos,eos}_token
/// chat_template  .chat_template
struct gguf_vocabulary {
  std::string model = "gpt2";
  std::string pre{};
  std::vector<std::string> tokens{};
  std::vector<std::string> merges{};
  std::vector<std::int32_t> token_types{};
  std::optional<std::int32_t> bos_id{}, eos_id{}, padding_id{};
  std::optional<bool> add_bos{}, add_eos{};
  std::string chat_template{};
};

namespace detail {

/// What a name in .ggml.pre stands for.
struct gguf_pre_tokenizer {
  std::string_view name;
  std::vector<split_step> steps;
  bool compose = false;
  bool ignore_merges = false;
  bool add_bos = false;
};

inline gguf_pre_tokenizer find_gguf_pre_tokenizer(std::string_view name) {
  using enum split_step;
  if (name == "gpt-2") return {name, {gpt2}};
  if (name == "smollm") return {name, {digits, gpt2}};
  if (name == "qwen2") return {name, {qwen2}, true};
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") {
    return {name, {llama3}, false, true, true};
  }
  lamina::throw_config_error("decoder::define_tokenizer: tokenizer.ggml.pre is '", name,
                             "', expected gpt-2, smollm, llama-bpe or qwen2");
}

}  // namespace detail

/// The definition of a GGUF file's tokenizer. Types 3 (control) and 2 (unknown) are special tokens,
/// 4 (user defined) is an added token that is not special.
///
/// Throws config_error for another model or pre-tokenizer, naming it; for a merge that is not two
/// tokens with a blank between; for another number of types than of tokens.
inline tokenizer_definition define_tokenizer(gguf_vocabulary const& file) {
  auto const refuse = [](auto const&... what) {
    lamina::throw_config_error("decoder::define_tokenizer: ", what...);
  };
  if (file.model != "gpt2") {
    refuse("tokenizer.ggml.model is '", file.model,
           "', expected gpt2: only byte-level BPE is read, no SentencePiece, WordPiece or Unigram");
  }
  auto const pre = detail::find_gguf_pre_tokenizer(file.pre);
  if (!file.token_types.empty() && file.token_types.size() != file.tokens.size()) {
    refuse("tokenizer.ggml.token_type has ", file.token_types.size(), " entries, expected ",
           file.tokens.size(), ", one for each of tokenizer.ggml.tokens");
  }

  tokenizer_definition result;
  result.tokens = file.tokens;
  for (std::size_t rank = 0; rank < file.merges.size(); ++rank) {
    std::string const& merge = file.merges[rank];
    std::size_t const blank = merge.find(' ');
    if (blank == 0 || blank == std::string::npos || blank + 1 == merge.size() ||
        merge.find(' ', blank + 1) != std::string::npos) {
      refuse("tokenizer.ggml.merges[", rank, "] is '", merge,
             "', expected two tokens with a blank between them");
    }
    result.merges.emplace_back(merge.substr(0, blank), merge.substr(blank + 1));
  }
  enum : std::int32_t { unknown = 2, control = 3, user_defined = 4 };
  for (std::size_t id = 0; id < file.token_types.size(); ++id) {
    std::int32_t const type = file.token_types[id];
    if (type != unknown && type != control && type != user_defined) continue;
    result.added_tokens.push_back({.text = file.tokens[id],
                                   .id = static_cast<std::int32_t>(id),
                                   .special = type != user_defined});
  }
  result.pre_tokenizer = pre.steps;
  result.compose = pre.compose;
  result.ignore_merges = pre.ignore_merges;
  result.bos_id = file.bos_id;
  result.eos_id = file.eos_id;
  result.padding_id = file.padding_id;
  auto const put = [&refuse](bool wanted, char const* name, std::optional<std::int32_t> id,
                             std::vector<std::int32_t>& where) {
    if (!wanted) return;
    if (!id) refuse("tokenizer.ggml.add_", name, "_token is set, but there is no ", name, " id");
    where.push_back(*id);
  };
  put(file.add_bos.value_or(pre.add_bos), "bos", file.bos_id, result.prefix);
  put(file.add_eos.value_or(false), "eos", file.eos_id, result.suffix);
  result.chat_template = file.chat_template;
  return result;
}

}  // namespace decoder
