// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A strict reader of the XML that the report writers produce: finds what is not well-formed.
#pragma once

#include <cctype>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace lamina::testing {

/// Elements and text of a document, or what is wrong with it.
struct markup {
  std::string error;
  std::vector<std::string> elements;
  std::vector<std::string> texts;

  int count(std::string_view element) const {
    int total = 0;
    for (std::string const& name : elements) total += name == element ? 1 : 0;
    return total;
  }
};

namespace detail {

inline bool good_text(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned char const c = static_cast<unsigned char>(text[i]);
    if (text[i] == '<' || (c < 0x20 && c != '\n' && c != '\t')) return false;
    if (text[i] != '&') continue;
    std::size_t const end = text.find(';', i);
    if (end == std::string_view::npos) return false;
    static std::set<std::string_view> const known{"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    if (known.count(text.substr(i, end - i + 1)) == 0) return false;
  }
  return true;
}

// Whether the inside of a tag after its name is a list of name="value".
inline bool good_attributes(std::string_view rest) {
  std::set<std::string> seen;
  while (!rest.empty()) {
    if (rest[0] != ' ') return false;
    std::size_t const equals = rest.find('=');
    if (equals == std::string_view::npos || equals + 1 >= rest.size()) return false;
    if (rest[equals + 1] != '"') return false;
    std::size_t const end = rest.find('"', equals + 2);
    if (end == std::string_view::npos) return false;
    if (!seen.insert(std::string(rest.substr(1, equals - 1))).second) return false;
    if (!good_text(rest.substr(equals + 2, end - equals - 2))) return false;
    rest.remove_prefix(end + 1);
  }
  return true;
}

}  // namespace detail

/// Reads a document. `empty_elements` are those HTML has without an end tag; the content of style
/// elements is taken as it is.
inline markup read_markup(std::string_view text, std::set<std::string> const& empty_elements = {}) {
  markup result;
  std::vector<std::string> open;
  std::size_t at = 0;
  auto const fail = [&](std::string const& what) {
    result.error = what + " near: " + std::string(text.substr(at, 60));
    return result;
  };
  while (at < text.size()) {
    std::size_t const tag = text.find('<', at);
    std::string_view const words = text.substr(at, tag - at);
    if (!open.empty() && open.back() == "style") {
      if (words.find('<') != std::string_view::npos) return fail("markup in a style");
    } else if (!detail::good_text(words)) {
      return fail("bad text");
    }
    result.texts.emplace_back(words);
    if (tag == std::string_view::npos) break;
    at = tag;
    std::size_t const end = text.find('>', tag);
    if (end == std::string_view::npos) return fail("a tag without end");
    std::string_view inside = text.substr(tag + 1, end - tag - 1);
    at = end + 1;
    if (inside.substr(0, 8) == "!DOCTYPE") continue;
    if (!inside.empty() && inside[0] == '/') {
      if (open.empty() || open.back() != inside.substr(1)) return fail("an end without start");
      open.pop_back();
      continue;
    }
    bool const closed = !inside.empty() && inside.back() == '/';
    if (closed) inside.remove_suffix(1);
    std::string const name(inside.substr(0, inside.find(' ')));
    for (char c : name) {
      if (!std::isalnum(static_cast<unsigned char>(c))) return fail("a bad name");
    }
    if (!detail::good_attributes(inside.substr(name.size()))) return fail("bad attributes");
    result.elements.push_back(name);
    if (!closed && empty_elements.count(name) == 0) open.push_back(name);
  }
  if (!open.empty()) return fail("not closed: " + open.back());
  return result;
}

}  // namespace lamina::testing
