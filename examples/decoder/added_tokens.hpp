// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tokens that are found in a text before it is cut into words, such as <|im_start|>: leftmost
// first, and of those that begin at one place the longest.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "examples/decoder/unicode.hpp"

namespace decoder {

/// A token beside the merges, as tokenizer.json describes it.
///
/// special       a control token: left out by a decode that skips those, and found in text only if
///               the caller wants it
/// single_word   found only where no letter, digit or underscore touches it
/// left_strip, right_strip  takes in the blanks before it, behind it
/// normalized    looked for in the normalised text, otherwise in the text as it came
struct added_token {
  std::string text{};
  std::int32_t id = 0;
  bool special = false;
  bool single_word = false;
  bool left_strip = false;
  bool right_strip = false;
  bool normalized = false;
};

/// A set of added tokens to look for.
class added_token_matcher {
 public:
  added_token_matcher() = default;
  explicit added_token_matcher(std::vector<added_token> tokens) : tokens_(std::move(tokens)) {
    std::sort(tokens_.begin(), tokens_.end(),
              [](auto const& a, auto const& b) { return a.text < b.text; });
    for (auto const& token : tokens_) begins_[static_cast<unsigned char>(token.text[0])] = true;
  }

  /// Calls on_text(std::string_view) for what lies between tokens and on_token(added_token const&)
  /// for every token found, from left to right.
  ///
  /// skip_special  special tokens are text like any other
  template <class OnText, class OnToken>
  void split(std::string_view text, bool skip_special, OnText&& on_text, OnToken&& on_token) const {
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      added_token const* const token = longest_at(text, at);
      if (token == nullptr) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = at += token->text.size();
      if (skip_special && token->special) continue;
      if (token->single_word && touches_word(text, begin, end)) continue;
      if (token->left_strip) begin = std::max(done, blanks_before(text, begin));
      if (token->right_strip) end = blanks_after(text, end);
      if (done < begin) on_text(text.substr(done, begin - done));
      on_token(*token);
      done = end;
    }
    if (done < text.size()) on_text(text.substr(done));
  }

 private:
  added_token const* longest_at(std::string_view text, std::size_t at) const {
    if (!begins_[static_cast<unsigned char>(text[at])]) return nullptr;
    added_token const* longest = nullptr;
    auto low = tokens_.begin(), high = tokens_.end();
    // The tokens that begin with the first `length` bytes are those in [low, high).
    for (std::size_t length = 1; at + length <= text.size(); ++length) {
      auto const byte_of = [length](added_token const& token) {
        return token.text.size() < length ? -1 : static_cast<unsigned char>(token.text[length - 1]);
      };
      int const byte = static_cast<unsigned char>(text[at + length - 1]);
      low = std::partition_point(low, high, [&](auto const& t) { return byte_of(t) < byte; });
      high = std::partition_point(low, high, [&](auto const& t) { return byte_of(t) <= byte; });
      if (low == high) break;
      if (low->text.size() == length) longest = &*low;
    }
    return longest;
  }

  static bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
    bool const before =
        begin > 0 && is_word(read_code_point(text, last_character(text, begin)).value);
    return before || (end < text.size() && is_word(read_code_point(text, end).value));
  }

  static std::size_t blanks_before(std::string_view text, std::size_t end) {
    while (end > 0) {
      std::size_t const previous = last_character(text, end);
      if (!is_space(read_code_point(text, previous).value)) break;
      end = previous;
    }
    return end;
  }

  static std::size_t blanks_after(std::string_view text, std::size_t at) {
    while (at < text.size()) {
      auto const [value, size] = read_code_point(text, at);
      if (!is_space(value)) break;
      at += static_cast<std::size_t>(size);
    }
    return at;
  }

  std::vector<added_token> tokens_;
  bool begins_[256] = {};
};

}  // namespace decoder
