// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a tokenizer asks of Unicode: code points of UTF-8, their classes, and NFC; all by utf8proc.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <utf8proc.h>

#include "lamina/core/error.hpp"

namespace decoder {

/// A code point and the bytes it takes; a size of 0 says that the bytes are not UTF-8.
struct code_point {
  std::int32_t value = 0;
  int size = 0;
};

/// The code point that begins at byte `at` < text.size().
inline code_point read_code_point(std::string_view text, std::size_t at) {
  auto const first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1};
  auto const left = std::min<std::size_t>(text.size() - at, 4);
  std::int32_t value = 0;
  auto const size = utf8proc_iterate(reinterpret_cast<utf8proc_uint8_t const*>(text.data()) + at,
                                     static_cast<utf8proc_ssize_t>(left), &value);
  return size > 0 ? code_point{value, static_cast<int>(size)} : code_point{};
}

/// Where the character begins that ends at `end` > 0.
inline std::size_t last_character(std::string_view text, std::size_t end) {
  do --end;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

/// The offset of the first byte that is not UTF-8 (RFC 3629: no surrogates, no overlong forms), or
/// npos.
inline std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    int const size = read_code_point(text, at).size;
    if (size == 0) return at;
    at += static_cast<std::size_t>(size);
  }
  return std::string_view::npos;
}

/// Bytes at the end of `text` that begin a character and are too few for it: 0 to 3. A byte that
/// begins no character does not count.
inline std::size_t unfinished_utf8_size(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    auto const byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) return 0;
    if (byte < 0xC0) continue;
    if (byte < 0xC2 || byte > 0xF4) return 0;
    std::size_t const size = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    return size > back ? back : 0;
  }
  return 0;
}

/// The classes that the patterns of pre-tokenizers tell apart: \p{L}, \p{N}, \s with \r and \n
/// apart, and everything else.
enum class character_class : unsigned char { letter, number, newline, space, other };

inline character_class class_of(std::int32_t value) {
  using enum character_class;
  switch (value) {
    case '\n':
    case '\r': return newline;
    case '\t':
    case '\v':
    case '\f':
    case 0x85: return space;
    default: break;
  }
  switch (utf8proc_category(value)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return number;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return space;
    default: return other;
  }
}

inline bool is_space(std::int32_t value) {
  auto const found = class_of(value);
  return found == character_class::space || found == character_class::newline;
}

/// The \w of Unicode's regular expressions (UTS 18, annex C): Alphabetic, marks, decimal digits,
/// connectors and joiners.
inline bool is_word(std::int32_t value) {
  if (class_of(value) == character_class::letter) return true;
  switch (utf8proc_category(value)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: break;
  }
  auto const within = [value](std::int32_t low, std::int32_t high) {
    return low <= value && value <= high;
  };
  bool const joiner = within(0x200C, 0x200D);
  bool const alphabetic_symbol = within(0x24B6, 0x24E9) || within(0x1F130, 0x1F149) ||
                                 within(0x1F150, 0x1F169) || within(0x1F170, 0x1F189);
  return joiner || alphabetic_symbol;
}

/// Canonical composition (Unicode annex 15) of valid UTF-8.
///
/// Throws config_error if utf8proc refuses the text.
inline std::string compose_nfc(std::string_view text) {
  bool const ascii = std::all_of(text.begin(), text.end(),
                                 [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  if (ascii) return std::string(text);
  utf8proc_uint8_t* composed = nullptr;
  auto const size =
      utf8proc_map(reinterpret_cast<utf8proc_uint8_t const*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &composed,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> const owner(composed, &std::free);
  if (size < 0) {
    lamina::throw_config_error("decoder::compose_nfc: utf8proc refuses the text: ",
                               utf8proc_errmsg(size));
  }
  return {reinterpret_cast<char const*>(composed), static_cast<std::size_t>(size)};
}

}  // namespace decoder
