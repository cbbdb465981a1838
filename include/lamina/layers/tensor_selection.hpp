// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A selection of the tensors of one model: by layer and role, and by patterns over names.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/core/parameter.hpp"
#include "lamina/core/view.hpp"
#include "lamina/layers/name_pattern.hpp"
#include "lamina/layers/parameter_name.hpp"
#include "lamina/layers/parameter_selection.hpp"

LAMINA_NAMESPACE_BEGIN

/// A tensor of a model, as a selection sees it. `name` is the host's and outlives this.
struct model_tensor {
  std::string_view name;
  /// Decoder layer, or outside_layers.
  index_t layer = outside_layers;
  parameter_role role = parameter_role::other;
  /// Whether the leading axis is layers, from `layer` to the last.
  bool stacked = false;

  /// Whether a plan can train it: it is in a layer, or embedding, final norm or head.
  constexpr bool trainable() const noexcept {
    return layer != outside_layers || outer_roles.contains(role);
  }
};

/// A parameter of a host as a selection sees it.
template <storage_scalar T>
constexpr model_tensor as_tensor(parameter_view<T> const& parameter) noexcept {
  return {parameter.name, parameter.layer, parameter.role};
}

/// The tensors of a checkpoint, placed by their names alone.
inline std::vector<model_tensor> model_tensors(std::vector<std::string> const& names,
                                               name_options const& options = {}) {
  std::vector<model_tensor> tensors;
  for (std::string const& name : names) {
    parameter_place const place = parse_parameter_name(name, options);
    tensors.push_back({name, place.layer, place.role, place.stacked});
  }
  return tensors;
}

/// Patterns over names with a sign: an inverted one selects what does not match.
struct pattern_item {
  name_pattern pattern;
  bool inverted = false;

  bool selects(std::string_view name) const { return pattern.matches(name) != inverted; }
  /// As a selection spells it.
  std::string text() const { return (inverted ? "!/" : "/") + pattern.text() + "/"; }
  friend bool operator==(pattern_item const&, pattern_item const&) = default;
};

/// What a selection text means for a model: the union of roles by layer, and of patterns.
///
/// A value. Two are equal if they select by the same roles and the same patterns.
class tensor_selection {
 public:
  /// By layer and role only.
  explicit tensor_selection(parameter_selection const& by_role)
      : by_role_(by_role), covering_(by_role) {}
  /// With patterns over the names of `tensors`. Throws selection_error if a layer of theirs is not
  /// one of the model's.
  tensor_selection(parameter_selection const& by_role, std::vector<pattern_item> patterns,
                   vector_view<model_tensor const> tensors)
      : by_role_(by_role), covering_(by_role.layer_count()), patterns_(std::move(patterns)) {
    if (tensors.empty()) covering_ = by_role;
    for (model_tensor const& tensor : tensors) cover(tensor);
  }

  index_t layer_count() const noexcept { return by_role_.layer_count(); }
  /// What is selected by layer and role, patterns aside.
  parameter_selection const& by_role() const noexcept { return by_role_; }
  std::vector<pattern_item> const& patterns() const noexcept { return patterns_; }

  /// The layers and roles of everything selected: what a backward plan needs. It may hold more than
  /// is selected, since a pattern can pick one of several tensors with one role; `contains` is
  /// exact.
  parameter_selection const& covering() const noexcept { return covering_; }

  /// Whether the tensor is selected, as a whole or a slice of it.
  bool contains(model_tensor const& tensor) const {
    return tensor.trainable() && (chosen_by_role(tensor) || matches(tensor.name));
  }

  friend bool operator==(tensor_selection const& a, tensor_selection const& b) {
    return a.by_role_ == b.by_role_ && a.patterns_ == b.patterns_;
  }

 private:
  bool matches(std::string_view name) const {
    for (pattern_item const& item : patterns_) {
      if (item.selects(name)) return true;
    }
    return false;
  }
  // The layers in which the tensor's role is selected by role; outside_layers is not among them.
  layer_set chosen_layers(model_tensor const& tensor) const {
    layer_set chosen;
    for (index_t const layer : by_role_.layers()) {
      bool const holds = tensor.stacked ? layer >= tensor.layer : layer == tensor.layer;
      if (holds && by_role_.contains(layer, tensor.role)) chosen.insert(layer);
    }
    return chosen;
  }
  bool chosen_by_role(model_tensor const& tensor) const {
    return tensor.layer == outside_layers ? by_role_.contains(outside_layers, tensor.role)
                                          : !chosen_layers(tensor).empty();
  }
  void cover(model_tensor const& tensor) {
    if (!contains(tensor)) return;
    if (tensor.layer == outside_layers) {
      covering_.add_outside(roles(tensor.role));
    } else if (!matches(tensor.name)) {
      covering_.add(chosen_layers(tensor), roles(tensor.role));
    } else {
      index_t const last = tensor.stacked ? layer_count() - 1 : tensor.layer;
      covering_.add(layer_range(tensor.layer, last), roles(tensor.role));
    }
  }

  parameter_selection by_role_;
  parameter_selection covering_;
  std::vector<pattern_item> patterns_;
};

LAMINA_NAMESPACE_END
