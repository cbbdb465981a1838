// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Pre-tokenizers: they cut a text into the words inside which byte pairs are merged. The patterns
// of the known tokenizers are scanned by hand, since all of them need one character of lookahead
// and four classes of characters.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "examples/decoder/unicode.hpp"

namespace decoder {

/// The pattern of GPT-2, which ByteLevel uses unless told otherwise.
inline constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
/// The pattern of Llama 3.
inline constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
/// The pattern of Qwen2, Qwen2.5 and Qwen3: that of Llama 3 with numbers cut into single digits.
inline constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// One step of a pre-tokenizer. Steps run in sequence: each sees the pieces of the one before it,
/// and nothing of what stands around them.
///
/// prefix_space  a blank is put before a piece that does not begin with one
/// digits        every character of \p{N} alone
/// digit_runs    runs of \p{N} alone
/// gpt2, llama3, qwen2  the pattern of that name, above
enum class split_step : unsigned char { prefix_space, digits, digit_runs, gpt2, llama3, qwen2 };

namespace detail {

// Reads the words of one piece, which is valid UTF-8.
class word_scanner {
 public:
  explicit word_scanner(std::string_view text) : text_(text) {}

  // The end of the word that begins at `at` under a step other than prefix_space.
  std::size_t end_of_word(std::size_t at, split_step step) const {
    using enum character_class;
    switch (step) {
      case split_step::digits: return look(at).is(number) ? look(at).end : end_of_other(at);
      case split_step::digit_runs:
        return look(at).is(number) ? end_of_run(at, number) : end_of_other(at);
      case split_step::gpt2: return gpt2(at);
      case split_step::llama3: return llama3(at, 3);
      default: return llama3(at, 1);
    }
  }

 private:
  // The character at a position: its class and where it ends. At the end of the text it has no
  // class.
  struct character {
    std::size_t end;
    std::int32_t value = -1;
    character_class kind = character_class::other;
    bool is(character_class wanted) const { return value >= 0 && kind == wanted; }
    bool is_space() const { return is(character_class::space) || is(character_class::newline); }
  };

  character look(std::size_t at) const {
    if (at >= text_.size()) return {text_.size()};
    auto const [value, size] = read_code_point(text_, at);
    return {at + static_cast<std::size_t>(size), value, class_of(value)};
  }

  std::size_t end_of_run(std::size_t at, character_class kind) const {
    while (look(at).is(kind)) at = look(at).end;
    return at;
  }

  std::size_t end_of_other(std::size_t at) const {
    for (auto c = look(at); c.value >= 0 && !c.is(character_class::number); c = look(at)) {
      at = c.end;
    }
    return at;
  }

  // \s+(?!\S)|\s+ : a run of blanks leaves its last one to the word that follows it.
  std::size_t end_of_spaces(std::size_t at) const {
    std::size_t last = at, end = at;
    for (auto c = look(at); c.is_space(); c = look(end)) {
      last = end;
      end = c.end;
    }
    return end == text_.size() || last == at ? end : last;
  }

  // The end of 's, 't, 're, 've, 'm, 'll or 'd, or `at` if none stands there. Without case, the
  // long s (U+017F) is an s.
  std::size_t end_of_contraction(std::size_t at, bool any_case) const {
    if (text_[at] != '\'') return at;
    auto const letter = [&](std::size_t position) {
      std::int32_t const value = look(position).value;
      if (!any_case) return value;
      if (value == 0x17F) return std::int32_t{'s'};
      return 'A' <= value && value <= 'Z' ? value - 'A' + 'a' : value;
    };
    std::int32_t const first = letter(at + 1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return look(at + 1).end;
    std::int32_t const second = first < 0x80 ? letter(at + 2) : -1;
    bool const known =
        ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l');
    return known ? at + 3 : at;
  }

  std::size_t gpt2(std::size_t at) const {
    using enum character_class;
    if (std::size_t const end = end_of_contraction(at, false); end != at) return end;
    std::size_t const start = text_[at] == ' ' ? at + 1 : at;
    for (character_class const kind : {letter, number, other}) {
      if (look(start).is(kind)) return end_of_run(start, kind);
    }
    return end_of_spaces(at);
  }

  std::size_t llama3(std::size_t at, int digit_count) const {
    using enum character_class;
    if (std::size_t const end = end_of_contraction(at, true); end != at) return end;
    character const first = look(at);
    if (first.is(letter)) return end_of_run(at, letter);
    if (first.is(number)) {
      std::size_t end = first.end;
      for (int i = 1; i < digit_count && look(end).is(number); ++i) end = look(end).end;
      return end;
    }
    if (!first.is(newline) && look(first.end).is(letter)) return end_of_run(first.end, letter);
    std::size_t const start = text_[at] == ' ' ? at + 1 : at;
    if (look(start).is(other)) return end_of_run(end_of_run(start, other), newline);
    // \s*[\r\n]+ : blanks up to the last newline of the run.
    std::size_t after_newline = at;
    for (auto c = first; c.is_space(); c = look(c.end)) {
      if (c.kind == newline) after_newline = c.end;
    }
    return after_newline != at ? after_newline : end_of_spaces(at);
  }

  std::string_view text_;
};

}  // namespace detail

/// Calls f(std::string_view word) for every word of `text`, which is valid UTF-8, from left to
/// right. The view lives until f returns.
template <class F>
void for_each_word(std::string_view text, std::span<split_step const> steps, F&& f) {
  if (text.empty()) return;
  if (steps.empty()) return f(text);
  auto const rest = steps.subspan(1);
  if (steps[0] == split_step::prefix_space) {
    if (text.front() == ' ') return for_each_word(text, rest, f);
    return for_each_word(" " + std::string(text), rest, f);
  }
  detail::word_scanner const scanner(text);
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const end = scanner.end_of_word(at, steps[0]);
    for_each_word(text.substr(at, end - at), rest, f);
    at = end;
  }
}

}  // namespace decoder
