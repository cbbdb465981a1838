// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A byte-level BPE tokenizer: text to token ids and back, id for id as Hugging Face's tokenizers.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "examples/decoder/added_tokens.hpp"
#include "examples/decoder/byte_level.hpp"
#include "examples/decoder/byte_pair_merges.hpp"
#include "examples/decoder/pre_tokenizer.hpp"
#include "lamina/core/error.hpp"

namespace decoder {

/// What a tokenizer is made of, whatever file it came from.
///
/// tokens         the vocabulary by id, spelled as in byte_level.hpp; an id that only an added
/// token
///                has is ""
/// merges         pairs of spelled tokens, best first
/// compose        text is brought to NFC first
/// ignore_merges  a word that is a token is that token, whatever the merges say
/// unknown_id     stands for a byte that has no token; without it such a byte is left out
/// fuse_unknown   neighbouring unknown bytes become one token
/// prefix, suffix the special tokens put around a text, such as that of the beginning
/// bos_id, eos_id, padding_id  what the model calls so; facts for the caller, not used in encoding
/// chat_template  the Jinja text for chat_template.hpp
struct tokenizer_definition {
  std::vector<std::string> tokens{};
  std::vector<std::pair<std::string, std::string>> merges{};
  std::vector<added_token> added_tokens{};
  std::vector<split_step> pre_tokenizer{};
  bool compose = false;
  bool ignore_merges = false;
  bool fuse_unknown = false;
  std::optional<std::int32_t> unknown_id{};
  std::vector<std::int32_t> prefix{}, suffix{};
  std::optional<std::int32_t> bos_id{}, eos_id{}, padding_id{};
  std::string chat_template{};
};

/// add_special_tokens    puts the definition's prefix and suffix around the text. A rendered chat
///                       has its own: false there
/// split_special_tokens  special tokens written in the text are text: for what a user typed
struct encode_options {
  bool add_special_tokens = true;
  bool split_special_tokens = false;
};

/// skip_special_tokens  special tokens are left out
struct decode_options {
  bool skip_special_tokens = false;
};

/// Encodes and decodes. Const calls may run at the same time.
class tokenizer {
 public:
  /// Throws config_error naming the first part that does not fit: two tokens of one spelling, a
  /// merge of what is no token, an id outside the vocabulary or with another text.
  explicit tokenizer(tokenizer_definition definition) : parts_(std::move(definition)) {
    add_vocabulary();
    add_merges();
    add_added_tokens();
    check_ids();
  }

  /// Ids are 0 .. size() - 1.
  std::int32_t size() const { return static_cast<std::int32_t>(bytes_.size()); }
  std::optional<std::int32_t> bos_id() const { return parts_.bos_id; }
  std::optional<std::int32_t> eos_id() const { return parts_.eos_id; }
  std::optional<std::int32_t> padding_id() const { return parts_.padding_id; }
  std::string const& chat_template() const { return parts_.chat_template; }

  /// The id of a token by its text: an added token as it is written, or the spelling of a token of
  /// the vocabulary.
  std::optional<std::int32_t> find(std::string_view token) const {
    auto const found = ids_.find(std::string(token));
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }

  /// The bytes of a token. Throws config_error for an id outside the vocabulary.
  std::string const& bytes(std::int32_t token) const {
    check_id("decoder::tokenizer", "token", token);
    return bytes_[static_cast<std::size_t>(token)];
  }

  /// Whether decode leaves the token out on request. Throws as bytes() does.
  bool is_special(std::int32_t token) const {
    check_id("decoder::tokenizer", "token", token);
    return special_[static_cast<std::size_t>(token)];
  }

  /// The ids of a text. A byte without a token (a vocabulary need not have all 256) becomes the
  /// unknown token or, if there is none, nothing.
  ///
  /// Throws config_error for text that is not UTF-8, with the offset, or has 2^31 bytes or more.
  std::vector<std::int32_t> encode(std::string_view text, encode_options options = {}) const {
    if (text.size() > std::numeric_limits<std::int32_t>::max()) {
      lamina::throw_config_error("decoder::tokenizer::encode: text has ", text.size(),
                                 " bytes, expected fewer than 2^31");
    }
    if (std::size_t const at = find_invalid_utf8(text); at != std::string_view::npos) {
      lamina::throw_config_error("decoder::tokenizer::encode: byte ",
                                 static_cast<int>(static_cast<unsigned char>(text[at])),
                                 " at offset ", at, " of the text is not UTF-8");
    }
    std::vector<std::int32_t> tokens;
    workspace memory;
    auto const on_token = [&tokens](added_token const& token) { tokens.push_back(token.id); };
    auto const on_text = [&](std::string_view piece) {
      for_each_word(piece, parts_.pre_tokenizer,
                    [&](std::string_view word) { encode_word(word, memory, tokens); });
    };
    bool const split_special = options.split_special_tokens;
    if (options.add_special_tokens) tokens = parts_.prefix;
    raw_tokens_.split(
        text, split_special,
        [&](std::string_view piece) {
          std::string composed;
          if (parts_.compose) piece = composed = compose_nfc(piece);
          normalized_tokens_.split(piece, split_special, on_text, on_token);
        },
        on_token);
    if (options.add_special_tokens) {
      tokens.insert(tokens.end(), parts_.suffix.begin(), parts_.suffix.end());
    }
    return tokens;
  }

  /// The bytes of the tokens, one after the other: UTF-8 if the tokens make up whole characters.
  /// What text_stream is for is a text that grows token by token.
  ///
  /// Throws config_error for an id outside the vocabulary.
  std::string decode(std::span<std::int32_t const> tokens, decode_options options = {}) const {
    for (std::int32_t const token : tokens) check_id("decoder::tokenizer::decode", "token", token);
    std::string text;
    for (std::int32_t const token : tokens) {
      auto const i = static_cast<std::size_t>(token);
      if (!(options.skip_special_tokens && special_[i])) text += bytes_[i];
    }
    return text;
  }

 private:
  struct workspace {
    std::vector<std::int32_t> symbols;
    byte_pair_merges::scratch merging;
  };

  void encode_word(std::string_view word, workspace& memory,
                   std::vector<std::int32_t>& tokens) const {
    if (parts_.ignore_merges) {
      if (auto const found = words_.find(std::string(word)); found != words_.end()) {
        tokens.push_back(found->second);
        return;
      }
    }
    memory.symbols.clear();
    bool after_unknown = false;
    for (char const c : word) {
      std::int32_t const token = token_of_byte_[static_cast<unsigned char>(c)];
      bool const unknown = token < 0;
      if (!unknown) {
        memory.symbols.push_back(token);
      } else if (parts_.unknown_id && !(after_unknown && parts_.fuse_unknown)) {
        memory.symbols.push_back(*parts_.unknown_id);
      }
      after_unknown = unknown;
    }
    merges_.encode(memory.symbols, memory.merging, tokens);
  }

  void add_vocabulary() {
    std::size_t const count = parts_.tokens.size();
    if (count >= std::size_t{1} << 24) {
      lamina::throw_config_error("decoder::tokenizer: there are ", count,
                                 " tokens, expected fewer than 2^24");
    }
    bytes_.resize(count);
    special_.resize(count);
    token_of_byte_.fill(-1);
    ids_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      std::string const& token = parts_.tokens[i];
      if (token.empty()) continue;
      auto const id = static_cast<std::int32_t>(i);
      if (auto const [other, added] = ids_.emplace(token, id); !added) {
        lamina::throw_config_error("decoder::tokenizer: tokens ", other->second, " and ", id,
                                   " are both '", token, "'");
      }
      auto const spelled = spelled_bytes(token);
      bytes_[i] = spelled ? *spelled : token;
      if (!spelled) continue;
      if (spelled->size() == 1) token_of_byte_[static_cast<unsigned char>((*spelled)[0])] = id;
      if (parts_.ignore_merges) words_.emplace(*spelled, id);
    }
  }

  void add_merges() {
    merges_.reserve(parts_.merges.size());
    for (std::size_t rank = 0; rank < parts_.merges.size(); ++rank) {
      std::string const& left = parts_.merges[rank].first;
      std::string const& right = parts_.merges[rank].second;
      auto const id_of = [&](std::string const& token) {
        auto const found = ids_.find(token);
        if (found == ids_.end()) {
          lamina::throw_config_error("decoder::tokenizer: merge ", rank, " makes '", left,
                                     "' and '", right, "' one, but '", token, "' is no token");
        }
        return found->second;
      };
      std::int32_t const left_id = id_of(left), right_id = id_of(right);
      merges_.add(left_id, right_id, id_of(left + right));
    }
    parts_.merges = {};
  }

  void add_added_tokens() {
    std::vector<added_token> raw, normalized;
    for (added_token& token : parts_.added_tokens) {
      check_id("decoder::tokenizer: added token '" + token.text + "'", "its id", token.id);
      if (token.text.empty()) {
        lamina::throw_config_error("decoder::tokenizer: added token ", token.id, " has no text");
      }
      auto const i = static_cast<std::size_t>(token.id);
      auto const [known, added] = ids_.emplace(token.text, token.id);
      if (known->second != token.id || (added && !parts_.tokens[i].empty())) {
        lamina::throw_config_error("decoder::tokenizer: added token '", token.text, "' has id ",
                                   token.id, ", but ",
                                   added ? "token '" + parts_.tokens[i] + "' has it"
                                         : "it is token " + std::to_string(known->second));
      }
      bytes_[i] = token.text;
      special_[i] = token.special;
      if (token.normalized && parts_.compose) token.text = compose_nfc(token.text);
      (token.normalized ? normalized : raw).push_back(std::move(token));
    }
    raw_tokens_ = added_token_matcher(std::move(raw));
    normalized_tokens_ = added_token_matcher(std::move(normalized));
    parts_.added_tokens = {};
    parts_.tokens = {};
  }

  void check_ids() const {
    auto const check = [this](char const* name, std::optional<std::int32_t> id) {
      if (id) check_id("decoder::tokenizer", name, *id);
    };
    check("unknown_id", parts_.unknown_id);
    check("bos_id", parts_.bos_id);
    check("eos_id", parts_.eos_id);
    check("padding_id", parts_.padding_id);
    for (std::int32_t const id : parts_.prefix) check("a token of the prefix", id);
    for (std::int32_t const id : parts_.suffix) check("a token of the suffix", id);
    for (std::size_t id = 0; id < bytes_.size(); ++id) {
      if (bytes_[id].empty())
        lamina::throw_config_error("decoder::tokenizer: id ", id, " has no token");
    }
  }

  void check_id(std::string_view where, char const* name, std::int32_t id) const {
    if (id < 0 || id >= size()) {
      lamina::throw_config_error(where, ": ", name, " is ", id, ", expected 0..",
                                 bytes_.size() - 1);
    }
  }

  tokenizer_definition parts_;  // its tokens, merges and added tokens have been moved out
  std::vector<std::string> bytes_;
  std::vector<bool> special_;
  std::unordered_map<std::string, std::int32_t> ids_;
  std::unordered_map<std::string, std::int32_t> words_;
  std::array<std::int32_t, 256> token_of_byte_{};
  byte_pair_merges merges_;
  added_token_matcher raw_tokens_, normalized_tokens_;
};

/// A text that grows token by token: hands out whole characters and keeps the beginning of one that
/// is not finished yet.
class text_stream {
 public:
  explicit text_stream(tokenizer const& tokens, decode_options options = {})
      : tokenizer_(&tokens), options_(options) {}

  /// What is new and complete once this token has been added. Throws as decode does.
  std::string add(std::int32_t token) {
    pending_ += tokenizer_->decode({&token, 1}, options_);
    std::size_t const kept = unfinished_utf8_size(pending_);
    std::string ready = pending_.substr(0, pending_.size() - kept);
    pending_.erase(0, ready.size());
    return ready;
  }

  /// The bytes of a character that was begun and never finished; none if all were.
  std::string finish() { return std::exchange(pending_, {}); }

 private:
  tokenizer const* tokenizer_;
  decode_options options_;
  std::string pending_;
};

}  // namespace decoder
