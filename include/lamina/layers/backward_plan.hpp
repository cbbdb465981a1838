// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a backward pass has to do for a selection, fixed before anything runs: what to save, where
// gradients flow, which weights are differentiated, where to stop.
#pragma once

#include "lamina/layers/parameter_selection.hpp"

LAMINA_NAMESPACE_BEGIN

/// What is trained besides whole decoder layers.
struct plan_options {
  /// Tensors trained inside the selected layers, the same in each; a parameter_selection says it
  /// layer by layer.
  role_set trained_roles = layer_roles;
  bool embeddings = false;
  bool final_norm = false;
  bool head = false;
};

/// The work of one training step, layer by layer. A value, usable in constant expressions.
///
/// Below the stop layer nothing is saved and no gradient flows. From it upwards activations are
/// saved and activation gradients flow; weight gradients exist at selected layers only. "Activation
/// gradient" of a layer is the gradient with respect to the layer's input: the stop layer needs its
/// own weight gradients but hands nothing further down.
class backward_plan {
 public:
  /// Any selection, an empty one too; plan_backward is the door that checks.
  constexpr explicit backward_plan(parameter_selection const& selection) noexcept
      : selection_(selection) {}

  constexpr index_t layer_count() const noexcept { return selection_.layer_count(); }
  /// What is trained, by layer and role.
  constexpr parameter_selection const& selection() const noexcept { return selection_; }
  /// The layers with at least one trained role.
  constexpr layer_set const& layers() const noexcept { return selection_.layers(); }
  /// The roles trained in a layer.
  constexpr role_set trained_roles(index_t layer) const noexcept {
    return in_range(layer) ? selection_.roles(layer) : role_set{};
  }
  /// The roles trained in at least one layer.
  constexpr role_set trained_roles() const noexcept {
    role_set all;
    for (index_t const layer : layers()) all = all | selection_.roles(layer);
    return all;
  }
  constexpr bool trains_embeddings() const noexcept {
    return selection_.contains(outside_layers, parameter_role::embedding);
  }
  constexpr bool trains_final_norm() const noexcept {
    return selection_.contains(outside_layers, parameter_role::final_norm);
  }
  constexpr bool trains_head() const noexcept {
    return selection_.contains(outside_layers, parameter_role::head);
  }

  /// The lowest layer the backward pass enters: 0 when embeddings are trained, else the lowest
  /// selected layer, else layer_count() (only final norm or head are trained).
  constexpr index_t stop_layer() const noexcept {
    if (trains_embeddings()) return 0;
    return layers().empty() ? layer_count() : layers().lowest();
  }
  /// Number of layers [0, frozen_prefix()) whose output no step of this plan can change; 0 when
  /// embeddings are trained.
  constexpr index_t frozen_prefix() const noexcept { return stop_layer(); }

  /// Whether the forward pass keeps this layer's activations for the backward pass.
  constexpr bool saved_activations(index_t layer) const noexcept {
    return in_range(layer) && layer >= stop_layer();
  }
  /// Whether the gradient with respect to this layer's input is computed.
  constexpr bool activation_gradient(index_t layer) const noexcept {
    if (!in_range(layer)) return false;
    return trains_embeddings() || layer > stop_layer();
  }
  /// Whether any weight gradient of this layer is computed.
  constexpr bool weight_gradient(index_t layer) const noexcept { return layers().contains(layer); }
  /// Whether the tensor with this role in this layer is trained. For tensors outside every layer
  /// pass layer = outside_layers.
  constexpr bool weight_gradient(index_t layer, parameter_role role) const noexcept {
    return selection_.contains(layer, role);
  }

 private:
  constexpr bool in_range(index_t layer) const noexcept {
    return layer >= 0 && layer < layer_count();
  }

  parameter_selection selection_;
};

/// The backward plan of a model with `layer_count` decoder layers that trains `layers`.
///
/// Throws config_error unless 1 <= layer_count <= max_layers, and selection_error if a layer does
/// not exist, if nothing at all would be trained, or if layers are selected with no role trained.
constexpr backward_plan plan_backward(index_t layer_count, layer_set const& layers,
                                      plan_options options = {}) {
  if (layer_count < 1 || layer_count > max_layers) {
    throw_config_error("plan_backward: layer_count is ", layer_count, ", expected 1..", max_layers);
  }
  if (layers.highest() >= layer_count) {
    throw_selection_error("plan_backward: layer ", layers.highest(),
                          " is selected, the model has layers 0..", layer_count - 1);
  }
  if (layers.empty() && !options.embeddings && !options.final_norm && !options.head) {
    throw_selection_error(
        "plan_backward: the selection is empty and neither embeddings, final_norm nor "
        "head is trained; expected at least one layer of 0..",
        layer_count - 1);
  }
  if (!layers.empty() && !options.trained_roles.intersects(layer_roles)) {
    throw_selection_error(
        "plan_backward: layers are selected but trained_roles holds no role of a layer");
  }
  parameter_selection selection(layer_count);
  selection.add(layers, options.trained_roles);
  if (options.embeddings) selection.add_outside(roles(parameter_role::embedding));
  if (options.final_norm) selection.add_outside(roles(parameter_role::final_norm));
  if (options.head) selection.add_outside(roles(parameter_role::head));
  return backward_plan(selection);
}

/// The backward plan that trains what `selection` selects, each layer with its own roles.
///
/// Throws config_error if the selection is of another layer count, and selection_error if it is
/// empty.
constexpr backward_plan plan_backward(index_t layer_count, parameter_selection const& selection) {
  if (selection.layer_count() != layer_count) {
    throw_config_error("plan_backward: the selection is of ", selection.layer_count(),
                       " layers, the model has ", layer_count);
  }
  if (selection.empty()) {
    throw_selection_error(
        "plan_backward: the selection is empty, expected at least one role of the layers 0..",
        layer_count - 1, ", or embeddings, final_norm or head");
  }
  return backward_plan(selection);
}

/// The plan of full-parameter training: every layer, embeddings, final norm and head.
constexpr backward_plan plan_full(index_t layer_count) {
  layer_set layers;
  if (layer_count >= 1 && layer_count <= max_layers) {
    for (index_t layer = 0; layer < layer_count; ++layer) layers.insert(layer);
  }
  return plan_backward(layer_count, layers, {.embeddings = true, .final_norm = true, .head = true});
}

LAMINA_NAMESPACE_END
