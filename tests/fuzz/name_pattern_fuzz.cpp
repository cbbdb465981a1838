// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// name_pattern, over a pattern and a name with a line break between: laws of every accepted
// pattern, and std::regex where both are small enough for it.
#include "lamina/layers/name_pattern.hpp"

#include <regex>

#include "tests/fuzz/require.hpp"

namespace {

bool is_printable(std::string_view text) {
  for (char const c : text) {
    if (c < ' ' || c > '~') return false;
  }
  return true;
}

// Short, and without counts, which multiply the states of std::regex.
bool is_small(std::string_view pattern, std::string_view name) {
  return pattern.size() <= 12 && name.size() <= 8 && is_printable(pattern) && is_printable(name) &&
         pattern.find('{') == std::string_view::npos;
}

void compare_with_std(std::string const& pattern, std::string const& name, bool matched) {
  try {
    require(std::regex_search(name, std::regex(pattern)) == matched);
  } catch (std::regex_error const&) {  // std::regex knows fewer escaped signs
  }
}

void check_escaped(std::string_view name) {
  if (name.empty() || name.size() > 400) return;
  std::string literal;
  for (char const c : name) {
    bool const is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!is_word) literal += '\\';
    literal += c;
  }
  require(lamina::name_pattern("^" + literal + "$").matches(name));
  require(!lamina::name_pattern("^" + literal + "$").matches(std::string(name) + "x"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  std::string_view const input(reinterpret_cast<char const*>(data), size);
  std::size_t const line = input.find('\n');
  std::string const pattern(input.substr(0, line));
  std::string const name(line == std::string_view::npos ? "" : input.substr(line + 1));
  check_escaped(name);
  try {
    lamina::name_pattern const compiled(pattern);
    bool const matched = compiled.matches(name);
    require(compiled == lamina::name_pattern(compiled.text()));
    if (is_small(pattern, name)) compare_with_std(pattern, name, matched);
    lamina::name_pattern const whole("^(" + pattern + ")$");
    require(matched || !whole.matches(name));
    require(lamina::name_pattern("(" + pattern + ")|" + pattern).matches(name) == matched);
    require(lamina::name_pattern("(" + pattern + ")?").matches(name));
  } catch (lamina::selection_error const&) {
  }
  return 0;
}
