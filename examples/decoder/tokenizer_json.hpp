// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tokenizer that Hugging Face's tokenizer.json describes. What the file asks for and this code
// does not do is an error that names it, so that no text is ever encoded in another way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/stat.h>

#include "examples/decoder/tokenizer.hpp"
#include "lamina/io/atomic_file.hpp"
#include "lamina/io/json.hpp"

namespace decoder {

namespace detail {

using lamina::json_view;

/// The parts of a component that may be a Sequence of components: `list` names its array.
inline std::vector<json_view> sequence_of(json_view const& component, std::string_view list) {
  if (component.at("type").text() != "Sequence") return {component};
  std::vector<json_view> parts;
  json_view const elements = component.at(list);
  for (lamina::index_t i = 0; i < std::ssize(elements.array()); ++i)
    parts.push_back(elements.at(i));
  return parts;
}

[[noreturn]] inline void refuse_type(json_view const& component, std::string_view expected) {
  lamina::throw_format_error(component.where(), " is of type ", component.at("type").text(),
                             ", expected ", expected);
}

inline bool flag(json_view const& object, std::string_view name, bool otherwise) {
  auto const found = object.find(name);
  return found ? found->boolean() : otherwise;
}

/// A member that changes what is encoded and has to be absent, null or `harmless`.
inline void expect_unset(json_view const& object, std::string_view name,
                         nlohmann::json const& harmless) {
  auto const found = object.find(name);
  if (found && found->value() != harmless) {
    lamina::throw_format_error(found->where(), " is ", found->value().dump(),
                               ", expected null: this is not supported");
  }
}

inline void read_vocabulary(json_view const& model, std::size_t added_count,
                            tokenizer_definition& result) {
  json_view const vocabulary = model.at("vocab");
  auto const& members = vocabulary.object();
  // Ids have no holes, so that no file can ask for more memory than it has text.
  auto const limit = static_cast<lamina::index_t>(members.size() + added_count);
  result.tokens.reserve(static_cast<std::size_t>(limit));
  for (auto const& member : members) {
    std::string const& token = member.first;
    auto const i = static_cast<std::size_t>(vocabulary.at(token).integer(0, limit - 1));
    if (result.tokens.size() <= i) result.tokens.resize(i + 1);
    if (!result.tokens[i].empty()) {
      lamina::throw_format_error(vocabulary.where(), ": '", token, "' and '", result.tokens[i],
                                 "' both have id ", i);
    }
    result.tokens[i] = token;
  }
}

inline void read_merges(json_view const& model, tokenizer_definition& result) {
  json_view const merges = model.at("merges");
  auto const& elements = merges.array();
  result.merges.reserve(elements.size());
  for (std::size_t rank = 0; rank < elements.size(); ++rank) {
    nlohmann::json const& merge = elements[rank];
    std::string left, right;
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else if (merge.is_string()) {
      auto const& text = merge.get_ref<std::string const&>();
      std::size_t const blank = text.find(' ');
      left = text.substr(0, blank);
      if (blank != std::string::npos) right = text.substr(blank + 1);
    }
    if (left.empty() || right.empty() || right.find(' ') != std::string::npos) {
      lamina::throw_format_error(merges.where(), "[", rank,
                                 "] is not two tokens, as \"a b\" or [\"a\", \"b\"]");
    }
    result.merges.emplace_back(std::move(left), std::move(right));
  }
}

inline void read_model(json_view const& model, std::size_t added_count,
                       tokenizer_definition& result) {
  if (auto const type = model.find("type"); type && type->text() != "BPE") {
    refuse_type(model, "BPE");
  }
  if (flag(model, "byte_fallback", false)) {
    lamina::throw_format_error(model.where(),
                               ".byte_fallback is true, expected false: only byte-level BPE is "
                               "read, no tokenizer converted from SentencePiece");
  }
  expect_unset(model, "dropout", 0.0);
  expect_unset(model, "continuing_subword_prefix", "");
  expect_unset(model, "end_of_word_suffix", "");
  read_vocabulary(model, added_count, result);
  read_merges(model, result);
  result.ignore_merges = flag(model, "ignore_merges", false);
  result.fuse_unknown = flag(model, "fuse_unk", false);
  if (auto const unknown = model.find("unk_token"); unknown && !unknown->text().empty()) {
    auto const& members = model.at("vocab").object();
    auto const found = members.find(unknown->text());
    if (found == members.end()) {
      lamina::throw_format_error(unknown->where(), " is '", unknown->text(),
                                 "', expected a token of the vocabulary");
    }
    result.unknown_id = found->second.get<std::int32_t>();
  }
}

inline void read_added_tokens(json_view const& list, tokenizer_definition& result) {
  auto const limit = static_cast<lamina::index_t>(1) << 24;
  for (lamina::index_t i = 0; i < std::ssize(list.array()); ++i) {
    json_view const token = list.at(i);
    bool const special = flag(token, "special", false);
    result.added_tokens.push_back(
        {.text = token.at("content").text(),
         .id = static_cast<std::int32_t>(token.at("id").integer(0, limit)),
         .special = special,
         .single_word = flag(token, "single_word", false),
         .left_strip = flag(token, "lstrip", false),
         .right_strip = flag(token, "rstrip", false),
         .normalized = flag(token, "normalized", !special)});
  }
}

inline split_step read_split(json_view const& split) {
  json_view const pattern = split.at("pattern").at("Regex");
  json_view const behavior = split.at("behavior");
  if (behavior.text() != "Isolated" || flag(split, "invert", false)) {
    lamina::throw_format_error(split.where(), " has behavior ", behavior.text(), " and invert ",
                               flag(split, "invert", false), ", expected Isolated and 0");
  }
  if (pattern.text() == gpt2_pattern) return split_step::gpt2;
  if (pattern.text() == llama3_pattern) return split_step::llama3;
  if (pattern.text() == qwen2_pattern) return split_step::qwen2;
  lamina::throw_format_error(pattern.where(), " is \"", pattern.text(),
                             "\", expected the pattern of GPT-2, Llama 3 or Qwen2");
}

inline void read_pre_tokenizer(json_view const& component, tokenizer_definition& result) {
  bool bytes = false;
  for (json_view const& part : sequence_of(component, "pretokenizers")) {
    std::string const& type = part.at("type").text();
    // What stands behind ByteLevel would see its spelling of bytes.
    if (bytes) refuse_type(part, "nothing behind ByteLevel");
    if (type == "Digits") {
      result.pre_tokenizer.push_back(
          flag(part, "individual_digits", false) ? split_step::digits : split_step::digit_runs);
    } else if (type == "Split") {
      result.pre_tokenizer.push_back(read_split(part));
    } else if (type == "ByteLevel") {
      bytes = true;
      if (flag(part, "add_prefix_space", true)) {
        result.pre_tokenizer.push_back(split_step::prefix_space);
      }
      if (flag(part, "use_regex", true)) result.pre_tokenizer.push_back(split_step::gpt2);
    } else {
      refuse_type(part, "ByteLevel, Digits or Split");
    }
  }
  if (!bytes) {
    lamina::throw_format_error(component.where(), " has no ByteLevel: only byte-level BPE is read");
  }
}

inline void read_template(json_view const& processor, tokenizer_definition& result) {
  json_view const pieces = processor.at("single");
  bool sequence = false;
  for (lamina::index_t i = 0; i < std::ssize(pieces.array()); ++i) {
    json_view const piece = pieces.at(i);
    if (piece.find("Sequence")) {
      if (sequence) lamina::throw_format_error(piece.where(), " is the text a second time");
      sequence = true;
      continue;
    }
    std::string const& name = piece.at("SpecialToken").at("id").text();
    json_view const ids = processor.at("special_tokens").at(name).at("ids");
    for (lamina::index_t k = 0; k < std::ssize(ids.array()); ++k) {
      (sequence ? result.suffix : result.prefix)
          .push_back(static_cast<std::int32_t>(ids.at(k).integer(0, INT32_MAX)));
    }
  }
  if (!sequence) lamina::throw_format_error(pieces.where(), " has no text between its tokens");
}

inline void read_post_processor(json_view const& component, tokenizer_definition& result) {
  bool found = false;
  for (json_view const& part : sequence_of(component, "processors")) {
    std::string const& type = part.at("type").text();
    if (type == "ByteLevel") continue;  // it moves offsets, not ids
    if (type != "TemplateProcessing" || found)
      refuse_type(part, "ByteLevel, one TemplateProcessing");
    found = true;
    read_template(part, result);
  }
}

}  // namespace detail

/// The definition in the text of a tokenizer.json. `truncation` and `padding` are left to the
/// caller, as transformers does.
///
/// source  what errors call the text: the path of the file, say
/// Throws format_error with the source and the place for what is not JSON, not of the form, or of a
/// kind that is not supported: other models than BPE, byte_fallback, dropout, affixes of words;
/// normalizers other than NFC; pre-tokenizers other than ByteLevel, Digits and Split by a known
/// pattern; post-processors other than ByteLevel and TemplateProcessing; decoders other than
/// ByteLevel.
inline tokenizer_definition define_tokenizer(std::string_view text, std::string_view source) {
  using namespace detail;
  auto const document = lamina::parse_json(text, source);
  json_view const root(document, source);
  tokenizer_definition result;
  if (auto const tokens = root.find("added_tokens")) read_added_tokens(*tokens, result);
  read_model(root.at("model"), result.added_tokens.size(), result);
  // Ids behind the vocabulary belong to added tokens.
  for (added_token const& token : result.added_tokens) {
    auto const id = static_cast<std::size_t>(token.id);
    auto const limit = root.at("model").at("vocab").object().size() + result.added_tokens.size();
    if (id >= limit) {
      lamina::throw_format_error(root.where(), ".added_tokens: '", token.text, "' has id ", id,
                                 ", expected 0..", limit - 1);
    }
    if (result.tokens.size() <= id) result.tokens.resize(id + 1);
  }
  if (auto const normalizer = root.find("normalizer")) {
    for (json_view const& part : sequence_of(*normalizer, "normalizers")) {
      if (part.at("type").text() != "NFC") refuse_type(part, "NFC");
      result.compose = true;
    }
  }
  read_pre_tokenizer(root.at("pre_tokenizer"), result);
  if (auto const processor = root.find("post_processor")) read_post_processor(*processor, result);
  for (json_view const& part : sequence_of(root.at("decoder"), "decoders")) {
    if (part.at("type").text() != "ByteLevel") refuse_type(part, "ByteLevel");
  }
  return result;
}

/// Adds what the text of a tokenizer_config.json says: bos_token, eos_token, pad_token and
/// chat_template (a text, or of several the one named default).
///
/// Throws format_error with the source and the place, also for a token that does not exist.
inline void add_tokenizer_config(tokenizer_definition& definition, std::string_view text,
                                 std::string_view source) {
  using detail::json_view;
  auto const document = lamina::parse_json(text, source);
  json_view const root(document, source);
  auto const find_token = [&](std::string_view name) -> std::optional<std::int32_t> {
    auto const member = root.find(name);
    if (!member) return std::nullopt;
    auto const& token = member->value().is_object() ? member->at("content").text() : member->text();
    for (added_token const& added : definition.added_tokens) {
      if (added.text == token) return added.id;
    }
    auto const found = std::find(definition.tokens.begin(), definition.tokens.end(), token);
    if (found == definition.tokens.end()) {
      lamina::throw_format_error(member->where(), " is '", token, "', expected a token");
    }
    return static_cast<std::int32_t>(found - definition.tokens.begin());
  };
  definition.bos_id = find_token("bos_token");
  definition.eos_id = find_token("eos_token");
  definition.padding_id = find_token("pad_token");
  auto const chat = root.find("chat_template");
  if (!chat) return;
  if (!chat->value().is_array()) {
    definition.chat_template = chat->text();
    return;
  }
  for (lamina::index_t i = 0; i < std::ssize(chat->array()); ++i) {
    if (chat->at(i).at("name").text() == "default") {
      definition.chat_template = chat->at(i).at("template").text();
    }
  }
}

/// The tokenizer of a model directory: tokenizer.json and, where they are there,
/// tokenizer_config.json and chat_template.jinja.
///
/// Throws io_error if tokenizer.json cannot be read, format_error as above.
inline tokenizer_definition read_tokenizer(std::string const& directory) {
  auto const path_of = [&directory](char const* name) { return directory + "/" + name; };
  auto const exists = [&path_of](char const* name) {
    struct stat found {};
    return ::stat(path_of(name).c_str(), &found) == 0;
  };
  std::string const path = path_of("tokenizer.json");
  auto result = define_tokenizer(lamina::read_file(path), path);
  if (exists("tokenizer_config.json")) {
    std::string const config = path_of("tokenizer_config.json");
    add_tokenizer_config(result, lamina::read_file(config), config);
  }
  if (exists("chat_template.jinja")) {
    result.chat_template = lamina::read_file(path_of("chat_template.jinja"));
  }
  return result;
}

}  // namespace decoder
