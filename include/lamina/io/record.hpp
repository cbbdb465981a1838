// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One checked line of text: tab-separated fields that may hold anything, a checksum, a newline; and
// numbers as text that reads back to the same bits.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/config.hpp"

LAMINA_NAMESPACE_BEGIN

/// FNV-1a, 64 bits. Every change of a single byte changes it.
/// Source: Fowler, Noll, Vo; RFC 9923.
constexpr std::uint64_t fnv1a_64(std::string_view bytes) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (char byte : bytes) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
  }
  return hash;
}

/// The shortest decimal text that reads back to exactly `value`, whatever the locale: "0.1",
/// "1e-300", "nan", "-inf".
inline std::string exact_text(double value) {
  char buffer[32];
  auto const end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

/// Up to six significant digits for a reader, whatever the locale: "0.333333", "3e-04".
inline std::string six_digits(double value) {
  char buffer[32];
  auto const end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::general, 6).ptr;
  return {buffer, end};
}

/// 16 lower-case hexadecimal digits.
inline std::string hex_text(std::uint64_t value) {
  std::string text(16, '0');
  for (std::size_t digit = 16; digit-- > 0; value >>= 4) {
    text[digit] = "0123456789abcdef"[value & 15u];
  }
  return text;
}

/// Reads a whole text as a number: false if anything is left over or out of range.
template <class Number>
bool parse_number(std::string_view text, Number& value) {
  auto const [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc{} && end == text.data() + text.size();
}

/// The fields as one line. Backslash, tab, newline and carriage return inside a field are escaped;
/// the last column is the checksum of all before it. Inverse of decode_record.
inline std::string encode_record(std::vector<std::string> const& fields) {
  std::string line;
  for (std::string const& field : fields) {
    for (char c : field) {
      switch (c) {
        case '\\': line += "\\\\"; break;
        case '\t': line += "\\t"; break;
        case '\n': line += "\\n"; break;
        case '\r': line += "\\r"; break;
        default: line += c;
      }
    }
    line += '\t';
  }
  return line + hex_text(fnv1a_64(line)) + '\n';
}

/// The fields of a line without its newline; false if the checksum does not match.
inline bool decode_record(std::string_view line, std::vector<std::string>& fields) {
  fields.clear();
  if (line.size() < 16) return false;
  std::string_view const body = line.substr(0, line.size() - 16);
  if (hex_text(fnv1a_64(body)) != line.substr(body.size())) return false;
  std::string field;
  for (std::size_t i = 0; i < body.size(); ++i) {
    if (body[i] == '\t') {
      fields.push_back(field);
      field.clear();
    } else if (body[i] == '\\' && i + 1 < body.size()) {
      char const code = body[++i];
      field += code == 't' ? '\t' : code == 'n' ? '\n' : code == 'r' ? '\r' : code;
    } else {
      field += body[i];
    }
  }
  return field.empty();
}

LAMINA_NAMESPACE_END
