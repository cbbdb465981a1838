// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Which tensors of a model are selected, said by layer and role: no names, no model.
#pragma once

#include "lamina/layers/layer_set.hpp"
#include "lamina/layers/role_set.hpp"

LAMINA_NAMESPACE_BEGIN

/// The selected roles of every layer, and of what lies outside the layers. A value of about two
/// kilobytes, usable in constant expressions.
class parameter_selection {
 public:
  /// Nothing, of a model with `layer_count` decoder layers. Throws config_error unless
  /// 1 <= layer_count <= max_layers.
  constexpr explicit parameter_selection(index_t layer_count) : layer_count_(layer_count) {
    if (layer_count < 1 || layer_count > max_layers) {
      throw_config_error("parameter_selection: layer_count is ", layer_count, ", expected 1..",
                         max_layers);
    }
  }

  /// Adds roles of `layers`: `roles` & layer_roles. Throws selection_error if the model lacks one
  /// of the layers; nothing has changed then.
  constexpr parameter_selection& add(layer_set const& layers, role_set roles = layer_roles) {
    if (layers.highest() >= layer_count_) {
      throw_selection_error("parameter_selection: layer ", layers.highest(),
                            " is selected, the model has layers 0..", layer_count_ - 1);
    }
    role_set const added = roles & layer_roles;
    if (added.empty()) return *this;
    for (index_t const layer : layers) roles_[layer] = roles_[layer] | added;
    layers_ = layers_ | layers;
    return *this;
  }
  /// Adds roles outside the layers: `roles` & outer_roles.
  constexpr parameter_selection& add_outside(role_set roles) noexcept {
    outside_ = outside_ | (roles & outer_roles);
    return *this;
  }

  constexpr index_t layer_count() const noexcept { return layer_count_; }
  /// The layers with at least one selected role.
  constexpr layer_set const& layers() const noexcept { return layers_; }
  /// The selected roles of a layer, or outside the layers for outside_layers; none for a layer the
  /// model does not have.
  constexpr role_set roles(index_t layer) const noexcept {
    if (layer == outside_layers) return outside_;
    return layer >= 0 && layer < layer_count_ ? roles_[layer] : role_set{};
  }
  /// Whether the tensor with this role in this layer (or outside_layers) is selected.
  constexpr bool contains(index_t layer, parameter_role role) const noexcept {
    return roles(layer).contains(role);
  }
  /// Whether everything `other` selects is selected.
  constexpr bool contains(parameter_selection const& other) const noexcept {
    for (index_t layer = outside_layers; layer < max_layers; ++layer) {
      if (!(other.roles(layer) - roles(layer)).empty()) return false;
    }
    return true;
  }
  constexpr bool empty() const noexcept { return layers_.empty() && outside_.empty(); }

  /// What either selects. Throws config_error unless both are of as many layers.
  friend constexpr parameter_selection operator|(parameter_selection a,
                                                 parameter_selection const& b) {
    if (a.layer_count_ != b.layer_count_) {
      throw_config_error("parameter_selection: one is of ", a.layer_count_,
                         " layers, the other of ", b.layer_count_);
    }
    for (index_t const layer : b.layers_) a.roles_[layer] = a.roles_[layer] | b.roles_[layer];
    a.layers_ = a.layers_ | b.layers_;
    return a.add_outside(b.outside_);
  }
  friend constexpr bool operator==(parameter_selection const&,
                                   parameter_selection const&) noexcept = default;

 private:
  index_t layer_count_;
  layer_set layers_;
  role_set roles_[max_layers] = {};
  role_set outside_;
};

LAMINA_NAMESPACE_END
