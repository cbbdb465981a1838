// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tokenizer that a published model comes with.
#pragma once

#include "examples/decoder/pretrained.hpp"
#include "examples/decoder/tokenizer_gguf.hpp"
#include "examples/decoder/tokenizer_json.hpp"

namespace decoder {

/// The fields tokenizer.* of a file. Throws format_error for fields of other types.
inline gguf_vocabulary read_vocabulary(gguf const& file) {
  std::string const prefix = "tokenizer.ggml.";
  auto const texts = [&](std::string const& key) {
    std::vector<std::string> result;
    for (std::string_view const text : file.texts(prefix + key)) result.emplace_back(text);
    return result;
  };
  auto const id = [&](std::string const& key) {
    std::optional<std::int32_t> result;
    if (!file.has(prefix + key)) return result;
    index_t const value = file.integer(prefix + key);
    if (value < 0 || value > std::numeric_limits<std::int32_t>::max()) {
      lamina::throw_format_error("decoder::read_vocabulary: '", file.file(), "' has '", prefix, key,
                                 "' = ", value, ", expected 0..2^31 - 1");
    }
    result = static_cast<std::int32_t>(value);
    return result;
  };
  auto const flag = [&](std::string const& key) {
    return file.has(prefix + key) ? std::optional(file.flag(prefix + key)) : std::nullopt;
  };
  gguf_vocabulary result;
  result.model = file.text(prefix + "model");
  result.pre = file.text(prefix + "pre");
  result.tokens = texts("tokens");
  result.merges = texts("merges");
  if (file.has(prefix + "token_type")) {
    for (index_t const type : file.integers(prefix + "token_type")) {
      result.token_types.push_back(static_cast<std::int32_t>(type));
    }
  }
  result.bos_id = id("bos_token_id");
  result.eos_id = id("eos_token_id");
  result.padding_id = id("padding_token_id");
  result.add_bos = flag("add_bos_token");
  result.add_eos = flag("add_eos_token");
  if (file.has("tokenizer.chat_template")) {
    result.chat_template = file.text("tokenizer.chat_template");
  }
  return result;
}

/// The definition of a model's tokenizer: from the metadata of its GGUF file, or from the
/// tokenizer.json of its directory. Throws as reading these does; format_error if there are more
/// tokens than the model's vocabulary has.
inline tokenizer_definition read_tokenizer(pretrained const& source) {
  tokenizer_definition result = source.metadata() != nullptr
                                    ? define_tokenizer(read_vocabulary(*source.metadata()))
                                    : read_tokenizer(source.path());
  if (static_cast<index_t>(result.tokens.size()) > source.shape().vocab) {
    lamina::throw_format_error("decoder::read_tokenizer: '", source.path(), "' has ",
                               result.tokens.size(), " tokens, expected at most the vocabulary of ",
                               source.shape().vocab);
  }
  return result;
}

}  // namespace decoder
