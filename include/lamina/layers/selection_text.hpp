// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Layer selections as text, both ways: what a command line or a settings file holds.
#pragma once

#include <string>
#include <string_view>

#include "lamina/layers/selector.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

constexpr bool is_blank(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

constexpr std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

// The whole of `digits` as a number; `meaning` says in the message what it stands for.
constexpr index_t parse_number(selection_source source, std::string_view digits,
                               std::string_view meaning) {
  if (digits.empty()) source.fail("expected ", meaning, " where nothing is");
  for (char const c : digits) {
    if (c < '0' || c > '9') source.fail("\"", digits, "\" is not ", meaning);
  }
  index_t value = 0;
  for (char const c : digits) {
    value = 10 * value + (c - '0');
    // Far beyond any layer, far below overflow; the caller checks the real range.
    if (value > 1'000'000'000) source.fail("the number ", digits, " is too large for ", meaning);
  }
  return value;
}

inline constexpr std::string_view layer_forms =
    "expected a layer (7), a range (13-22), first:k, last:k, middle:k, top:k, worst:k, every:n, "
    "every:n+offset, all or none, with ! in front for the complement";

// One item of a selection, without surrounding blanks and without its '!'. `forms` is what the
// message says of an item that is none.
constexpr layer_set parse_item(selection_source source, std::string_view item, index_t layer_count,
                               vector_view<double const> profile, std::string_view forms) {
  if (item == "all") return consecutive(0, layer_count - 1);
  if (item == "none") return {};
  std::size_t const colon = item.find(':');
  if (colon != std::string_view::npos) {
    std::string_view const word = item.substr(0, colon);
    std::string_view const argument = item.substr(colon + 1);
    if (word == "every") {
      std::size_t const plus = argument.find('+');
      index_t const n = parse_number(source, argument.substr(0, plus), "a step");
      index_t const offset = plus == std::string_view::npos
                                 ? 0
                                 : parse_number(source, argument.substr(plus + 1), "an offset");
      return select_every(source, layer_count, n, offset);
    }
    bool const ranked = word == "top" || word == "worst";
    if (ranked || word == "first" || word == "last" || word == "middle") {
      index_t const k = parse_number(source, argument, "a number of layers");
      if (ranked && profile.empty()) {
        source.fail("needs a contribution profile, and none is given");
      }
      if (ranked) return select_ranked(source, profile, k, word == "top" ? 1 : -1);
      if (word == "first") return select_first(source, layer_count, k);
      if (word == "last") return select_last(source, layer_count, k);
      return select_middle(source, layer_count, k);
    }
  } else if (!item.empty() && item.front() >= '0' && item.front() <= '9') {
    std::size_t const dash = item.find('-');
    index_t const first = parse_number(source, item.substr(0, dash), "a layer");
    index_t const last = dash == std::string_view::npos
                             ? first
                             : parse_number(source, item.substr(dash + 1), "a layer");
    return select_range(source, layer_count, first, last);
  }
  source.fail(forms);
}

}  // namespace detail

/// The layers that `text` names: the union of its comma-separated items.
///
///   7  13-22             a layer; a range, both ends included
///   first:2  last:4  middle:3      by position (first_layers, last_layers, middle_layers)
///   top:5  worst:5       by contribution; these need `profile`
///   every:4  every:4+1   every fourth layer, from layer 0 or from layer 1
///   all  none            every layer; no layer
///   !ITEM                the layers that ITEM does not name
///
/// profile  [layers] or empty  contributions, NaN where not measured
/// Blanks around items are ignored. Throws selection_error, naming the text, the item and what was
/// expected, for anything else; shape_error if the profile is of another model.
constexpr layer_set parse_layers(std::string_view text, index_t layer_count,
                                 vector_view<double const> profile = {}) {
  detail::check_layer_count("parse_layers", layer_count);
  if (!profile.empty() && profile.size != layer_count) {
    throw_shape_error("parse_layers: the profile has ", profile.size, " layers, the model has ",
                      layer_count);
  }
  if (detail::trimmed(text).empty()) {
    throw_selection_error(
        "parse_layers: the text is empty, expected a selection such as \"13-22\", \"middle:3\", "
        "\"all\" or \"none\"");
  }
  layer_set layers;
  for (std::size_t begin = 0;;) {
    std::size_t const comma = text.find(',', begin);
    bool const is_last = comma == std::string_view::npos;
    std::size_t const length = is_last ? std::string_view::npos : comma - begin;
    std::string_view item = detail::trimmed(text.substr(begin, length));
    detail::selection_source const source{"parse_layers", item, text};
    if (item.empty()) source.fail("the item is empty, expected a layer or a selector");
    bool const inverted = item.front() == '!';
    if (inverted) item.remove_prefix(1);
    layer_set const named =
        detail::parse_item(source, item, layer_count, profile, detail::layer_forms);
    layers = layers | (inverted ? detail::complement_of(source, named, layer_count) : named);
    if (is_last) return layers;
    begin = comma + 1;
  }
}

/// The canonical text of a set: ascending layers and ranges ("0-3,7,10-12"), "none" if empty.
/// parse_layers brings the same set back for every model that has its layers.
inline std::string to_text(layer_set const& layers) {
  if (layers.empty()) return "none";
  std::string text;
  for (index_t first = layers.lowest(); first >= 0;) {
    index_t last = first;
    while (layers.contains(last + 1)) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(first);
    if (last > first) text.append(1, '-').append(std::to_string(last));
    first = layers.next(last + 1);
  }
  return text;
}

LAMINA_NAMESPACE_END
