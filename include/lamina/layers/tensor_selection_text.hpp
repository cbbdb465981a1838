// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Selections of tensors as text, both ways: layers, roles, names outside the layers, patterns.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/layers/role_text.hpp"
#include "lamina/layers/selection_text.hpp"
#include "lamina/layers/tensor_selection.hpp"

LAMINA_NAMESPACE_BEGIN

/// The lookup of a program that has no contribution profiles: every reference is unknown.
struct no_profiles {
  std::vector<double> operator()(std::string_view) const { return {}; }
};

namespace detail {

inline constexpr std::string_view selection_forms =
    "expected a layer (7), a range (13-22), first:k, last:k, middle:k, top:k, worst:k, "
    "top:k@PROFILE, every:n, every:n+offset, all, * or none, each with :ROLES or without; "
    "embeddings, final_norm or head; /PATTERN/; with ! in front for the complement";

// What a selection could have named, for messages.
inline std::string what_exists(index_t layer_count, vector_view<model_tensor const> tensors) {
  role_set in_layers = tensors.empty() ? layer_roles : role_set{};
  role_set outside = tensors.empty() ? outer_roles : role_set{};
  for (model_tensor const& tensor : tensors) {
    role_set& seen = tensor.layer == outside_layers ? outside : in_layers;
    seen = seen | roles(tensor.role);
  }
  std::string text = join("the model has layers 0..", layer_count - 1, ", the roles ",
                          names_within(role_names, in_layers));
  std::string const outer = names_within(outer_names, outside);
  if (!outer.empty()) text += " and, outside the layers, " + outer;
  for (index_t i = 0; i < tensors.size && i < 3; ++i) {
    text += i == 0 ? "; its tensors are " : ", ";
    text += tensors[i].name;
  }
  return tensors.size > 3 ? text + ", ..." : text;
}

// Reads the items of one selection text.
template <class Profiles>
class selection_reader {
 public:
  selection_reader(std::string_view text, index_t layer_count,
                   vector_view<model_tensor const> tensors, Profiles const& profiles)
      : text_(text),
        layer_count_(layer_count),
        tensors_(tensors),
        profiles_(profiles),
        by_role_(layer_count),
        named_(layer_count) {}

  tensor_selection read() {
    std::string_view rest = text_;
    for (bool more = true; more;) {
      std::size_t const end = item_end(rest);
      more = end < rest.size();
      read_item(trimmed(rest.substr(0, end)));
      if (more) rest.remove_prefix(end + 1);
    }
    if (!tensors_.empty()) drop_layers_without_tensors();
    tensor_selection selection(by_role_, std::move(patterns_), tensors_);
    check_whole(selection);
    return selection;
  }

 private:
  // Where the pattern that `item` begins with ends: its closing slash, or the end of the text.
  static std::size_t pattern_end(std::string_view item) noexcept {
    std::size_t i = 1;
    while (i < item.size() && item[i] != '/') i += item[i] == '\\' ? 2 : 1;
    return i < item.size() ? i : item.size();
  }
  // Up to the comma behind the first item; a comma inside of a pattern is not one.
  static std::size_t item_end(std::string_view rest) noexcept {
    std::size_t i = 0;
    while (i < rest.size() && (is_blank(rest[i]) || rest[i] == '!')) ++i;
    if (i < rest.size() && rest[i] == '/') i += pattern_end(rest.substr(i));
    std::size_t const comma = rest.find(',', i);
    return comma == std::string_view::npos ? rest.size() : comma;
  }

  selection_source source(std::string_view item) const { return {"parse_selection", item, text_}; }

  void read_item(std::string_view item) {
    selection_source const where = source(item);
    if (item.empty()) where.fail("the item is empty, expected a layer or a selector");
    bool const inverted = item.front() == '!';
    if (inverted) item.remove_prefix(1);
    if (!item.empty() && item.front() == '/') return read_pattern(where, item, inverted);
    parameter_selection found(layer_count_);
    for (role_name const& outer : outer_names) {
      if (item == outer.name) {
        found.add_outside(inverted ? outer_roles - outer.roles : outer.roles);
      }
    }
    bool const spelled_out = !item.empty() && (item.front() == '*' || item.substr(0, 3) == "all" ||
                                               (item.front() >= '0' && item.front() <= '9'));
    if (found.empty()) found = read_layers(where, item, inverted);
    if (spelled_out && !inverted) named_ = named_ | found;
    if (!found.empty()) check_exists(where, found);
    by_role_ = by_role_ | found;
  }

  parameter_selection read_layers(selection_source where, std::string_view item,
                                  bool inverted) const {
    role_set chosen = layer_roles;
    std::size_t const colon = item.rfind(':');
    if (colon != std::string_view::npos && colon + 1 < item.size()) {
      char const c = item[colon + 1];
      if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
        chosen = parse_roles(where, item.substr(colon + 1));
        item = item.substr(0, colon);
      }
    }
    layer_set const layers = item == "*" ? all_layers(layer_count_) : read_layer_item(where, item);
    parameter_selection found(layer_count_);
    if (!inverted) return found.add(layers, chosen);
    found.add(all_layers(layer_count_) - layers);
    return found.add(layers, layer_roles - chosen);
  }

  layer_set read_layer_item(selection_source where, std::string_view item) const {
    std::string_view const word = item.substr(0, item.find(':'));
    std::vector<double> profile;
    if (word == "top" || word == "worst") {
      std::size_t const at = item.find('@');
      std::string_view reference;
      if (at != std::string_view::npos) {
        reference = item.substr(at + 1);
        item = item.substr(0, at);
        if (reference.empty()) where.fail("expected the name of a profile behind \"@\"");
      }
      profile = profiles_(reference);
      auto const size = static_cast<index_t>(profile.size());
      if (size != layer_count_ && size != 0) {
        where.fail("the profile has ", size, " layers, the model has ", layer_count_);
      }
      if (at != std::string_view::npos && profile.empty()) {
        where.fail("there is no contribution profile \"", reference, "\"");
      }
    }
    return parse_item(where, item, layer_count_, profile, selection_forms);
  }

  void read_pattern(selection_source where, std::string_view item, bool inverted) {
    if (pattern_end(item) == item.size()) where.fail("expected a closing \"/\"");
    if (pattern_end(item) + 1 < item.size()) where.fail("expected a comma behind the pattern");
    pattern_item const made{{where, item.substr(1, item.size() - 2)}, inverted};
    if (tensors_.empty()) {
      where.fail("needs the names of the model's tensors, and none are given");
    }
    index_t selected = 0, trainable = 0;
    for (model_tensor const& tensor : tensors_) {
      trainable += tensor.trainable();
      if (!made.selects(tensor.name)) continue;
      selected += tensor.trainable();
      if (!tensor.trainable() && !inverted) {
        where.fail("matches ", tensor.name,
                   ", which is in no decoder layer and neither embedding, final norm nor head");
      }
    }
    if (selected == 0) where.fail("matches no tensor; ", what_exists(layer_count_, tensors_));
    if (selected == trainable) {
      where.fail("selects every tensor; say ", everything, " if that is meant");
    }
    auto at = patterns_.begin();  // in the order of their texts, each once
    while (at != patterns_.end() && at->text() < made.text()) ++at;
    if (at == patterns_.end() || !(*at == made)) patterns_.insert(at, made);
  }

  // Whether the model has a tensor of what an item selects. A head that is tied to the embeddings
  // is listed as embedding: it is looked for when all is read.
  void check_exists(selection_source where, parameter_selection const& found) const {
    tensor_selection const item(found);
    if (tensors_.empty() || item.by_role().contains(outside_layers, parameter_role::head)) return;
    for (model_tensor const& tensor : tensors_) {
      if (item.contains(tensor)) return;
    }
    where.fail("selects no tensor; ", what_exists(layer_count_, tensors_));
  }

  static constexpr std::string_view everything = "\"all,embeddings,final_norm,head\"";

  void check_whole(tensor_selection const& selection) const {
    parameter_selection const& covering = selection.covering();
    bool const wants_head = by_role_.contains(outside_layers, parameter_role::head);
    if (wants_head && !covering.contains(outside_layers, parameter_role::head) &&
        !covering.contains(outside_layers, parameter_role::embedding)) {
      throw_selection_error("parse_selection: \"", text_,
                            "\" selects a head, and the model has no tensor for one; a head tied "
                            "to the embeddings is selected as embeddings; ",
                            what_exists(layer_count_, tensors_));
    }
    if (covering.empty()) {
      throw_selection_error("parse_selection: \"", text_, "\" selects nothing; ",
                            what_exists(layer_count_, tensors_));
    }
    if (is_every_layer(selection) && !is_every_layer(tensor_selection(named_))) {
      throw_selection_error("parse_selection: \"", text_,
                            "\" selects every layer without saying so; say \"all\" if that is "
                            "meant; ",
                            what_exists(layer_count_, tensors_));
    }
  }

  // A hybrid model has roles in some layers only; a layer of which nothing is left is not selected.
  void drop_layers_without_tensors() {
    layer_set const reached = tensor_selection(by_role_, {}, tensors_).covering().layers();
    parameter_selection left(layer_count_);
    for (index_t const layer : by_role_.layers() & reached) {
      left.add(single_layer(layer), by_role_.roles(layer));
    }
    by_role_ = left.add_outside(by_role_.roles(outside_layers));
  }

  bool is_every_layer(tensor_selection const& selection) const {
    if (tensors_.empty()) {
      return selection.by_role().contains(
          parameter_selection(layer_count_).add(all_layers(layer_count_)));
    }
    for (model_tensor const& tensor : tensors_) {
      if (tensor.layer != outside_layers && !selection.contains(tensor)) return false;
    }
    return true;
  }

  std::string_view text_;
  index_t layer_count_;
  vector_view<model_tensor const> tensors_;
  Profiles const& profiles_;
  parameter_selection by_role_;
  parameter_selection named_;  // what is spelled out: by number, or as everything
  std::vector<pattern_item> patterns_;
};

}  // namespace detail

/// The tensors that `text` names in a model with `layer_count` decoder layers: the union of its
/// comma-separated items.
///
///   13-22                    layers, in every form of parse_layers; * is all
///   top:5@NAME               the profile that profiles(NAME) looks up; profiles("") without @
///   13-22:mlp  *:attention.q+attention.k     layers with roles (parse_roles)
///   embeddings  final_norm  head             outside the layers
///   /\.q_proj\./             tensors whose name holds the pattern (name_pattern); "\/" is a slash
///   !ITEM                    the complement: among the layers and their roles of a layer item,
///                            among the three names outside, among the tensors of a pattern
///
/// tensors   what the model has; may be empty, then patterns are refused and nothing is looked for
/// profiles  profiles(std::string_view) -> std::vector<double>, [layers] contributions, NaN where
///           not measured; empty if there is none by this name
///
/// Throws selection_error, with the item, the text and what exists, for anything else; if an item
/// selects no tensor of the model; if nothing is selected; and if every layer is selected though no
/// item says all, * or the layers' numbers. Throws config_error for a bad layer count. What
/// `profiles` throws passes through.
template <class Profiles = no_profiles>
tensor_selection parse_selection(std::string_view text, index_t layer_count,
                                 vector_view<model_tensor const> tensors = {},
                                 Profiles const& profiles = {}) {
  detail::check_layer_count("parse_selection", layer_count);
  if (detail::trimmed(text).empty()) {
    throw_selection_error("parse_selection: the text is empty; ",
                          detail::what_exists(layer_count, tensors));
  }
  return detail::selection_reader<Profiles>(text, layer_count, tensors, profiles).read();
}

/// The canonical text of a selection: ascending ranges of layers with equal roles, then what is
/// outside, "none" if there is nothing. parse_selection brings the same back, but for "none".
inline std::string to_text(parameter_selection const& selection) {
  std::string text;
  auto const add = [&](std::string_view item) {
    if (!text.empty()) text += ',';
    text += item;
  };
  index_t const layer_count = selection.layer_count();
  for (index_t first = selection.layers().lowest(); first >= 0;) {
    role_set const chosen = selection.roles(first);
    index_t last = first;
    while (selection.roles(last + 1) == chosen) ++last;
    bool const every = first == 0 && last == layer_count - 1;
    bool const whole = chosen == layer_roles;
    std::string const range = to_text(layer_range(first, last));
    add((every ? (whole ? "all" : "*") : range) + (whole ? "" : ":" + to_text(chosen)));
    first = selection.layers().next(last + 1);
  }
  for (detail::role_name const& outer : detail::outer_names) {
    if (!(selection.roles(outside_layers) & outer.roles).empty()) add(outer.name);
  }
  return text.empty() ? "none" : text;
}

/// The canonical text of a selection, patterns behind the rest; parse_selection with the same
/// tensors brings the same back.
inline std::string to_text(tensor_selection const& selection) {
  std::string text = selection.by_role().empty() ? "" : to_text(selection.by_role());
  for (pattern_item const& item : selection.patterns()) {
    if (!text.empty()) text += ',';
    text += item.text();
  }
  return text.empty() ? "none" : text;
}

LAMINA_NAMESPACE_END
