// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The spelling of bytes in the vocabulary of a byte-level tokenizer, as GPT-2 has it: a printable
// character of Latin-1 stands for its own byte, and the other 68 bytes, in ascending order, are
// spelled U+0100, U+0101 ...: a blank is U+0120.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "examples/decoder/unicode.hpp"

namespace decoder {

namespace detail {

constexpr bool stands_for_itself(int byte) {
  return (0x21 <= byte && byte <= 0x7E) || (0xA1 <= byte && byte <= 0xAC) ||
         (0xAE <= byte && byte <= 0xFF);
}

// The byte of each code point below 0x144, -1 where there is none.
constexpr std::array<std::int16_t, 0x144> bytes_of_code_points() {
  std::array<std::int16_t, 0x144> bytes{};
  bytes.fill(-1);
  std::size_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    std::size_t const spelling = stands_for_itself(byte) ? static_cast<std::size_t>(byte) : next++;
    bytes[spelling] = static_cast<std::int16_t>(byte);
  }
  return bytes;
}

inline constexpr auto byte_of_code_point = bytes_of_code_points();

}  // namespace detail

/// The bytes that a token of the vocabulary spells, or nothing if some character spells none.
inline std::optional<std::string> spelled_bytes(std::string_view token) {
  std::string bytes;
  for (std::size_t at = 0; at < token.size();) {
    auto const [value, size] = read_code_point(token, at);
    auto const known = static_cast<std::int32_t>(detail::byte_of_code_point.size());
    if (size == 0 || value >= known) return std::nullopt;
    int const byte = detail::byte_of_code_point[static_cast<std::size_t>(value)];
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
    at += static_cast<std::size_t>(size);
  }
  return bytes;
}

}  // namespace decoder
