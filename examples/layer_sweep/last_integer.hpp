// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The number a response ends on, as people write numbers: with thousands separators, a currency
// sign, a unit, a point at the end of the sentence.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace layer_sweep {

namespace detail {

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

constexpr std::size_t digits_at(std::string_view text, std::size_t at) noexcept {
  std::size_t count = 0;
  while (at + count < text.size() && is_digit(text[at + count])) ++count;
  return count;
}

}  // namespace detail

/// The last number of a text if it is an integer; none if there is no number or the last one is a
/// fraction, a decimal or has more than 18 digits.
///
///   "about 1,234."  "$1234"  "1234 apples"  "1234.00"  "12 + 22 = 1234"  ->  1234
///   "-5"  "($-5)"   ->  -5      "10 - 5", "x-5", "2-5"  ->  5: a minus that belongs to no number
///   "3.5"  "1/2"  "none"  "B2"  ->  none
constexpr std::optional<std::int64_t> last_integer(std::string_view text) {
  std::optional<std::int64_t> last;
  for (std::size_t at = 0; at < text.size();) {
    bool const begins = detail::is_digit(text[at]) &&
                        (at == 0 || (!detail::is_letter(text[at - 1]) && text[at - 1] != '_'));
    if (!begins) {
      // The digits of a name belong to no number.
      at += detail::is_digit(text[at]) ? detail::digits_at(text, at) : 1;
      continue;
    }
    bool const negative = at > 0 && text[at - 1] == '-' &&
                          (at == 1 || text[at - 2] == ' ' || text[at - 2] == '(' ||
                           text[at - 2] == '$' || text[at - 2] == '\n' || text[at - 2] == '=');
    std::int64_t value = 0;
    std::size_t digits = 0;
    auto const take = [&](std::size_t count) {
      for (std::size_t i = 0; i < count; ++i, ++at) {
        if (++digits <= 18) value = value * 10 + (text[at] - '0');
      }
    };
    std::size_t const leading = detail::digits_at(text, at);
    take(leading);
    while (leading <= 3 && at < text.size() && text[at] == ',' &&
           detail::digits_at(text, at + 1) == 3) {
      ++at;
      take(3);
    }
    bool whole = digits <= 18;
    if (at + 1 < text.size() && (text[at] == '.' || text[at] == '/') &&
        detail::is_digit(text[at + 1])) {
      bool const fraction = text[at] == '/';
      for (++at; at < text.size() && detail::is_digit(text[at]); ++at) {
        whole = whole && !fraction && text[at] == '0';
      }
    }
    last = whole ? std::optional(negative ? -value : value) : std::nullopt;
  }
  return last;
}

}  // namespace layer_sweep
