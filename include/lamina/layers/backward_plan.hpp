// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a backward pass has to do for a selection, fixed before anything runs: what to save, where
// gradients flow, which weights are differentiated, where to stop.
#pragma once

#include "lamina/layers/layer_set.hpp"
#include "lamina/layers/role_set.hpp"

LAMINA_NAMESPACE_BEGIN

/// What is trained besides whole decoder layers.
struct plan_options {
  /// Tensors trained inside the selected layers.
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
  constexpr backward_plan(index_t layer_count, layer_set layers, plan_options options) noexcept
      : layer_count_(layer_count), layers_(layers), options_(options) {}

  constexpr index_t layer_count() const noexcept { return layer_count_; }
  constexpr layer_set const& layers() const noexcept { return layers_; }
  constexpr role_set trained_roles() const noexcept { return options_.trained_roles; }
  constexpr bool trains_embeddings() const noexcept { return options_.embeddings; }
  constexpr bool trains_final_norm() const noexcept { return options_.final_norm; }
  constexpr bool trains_head() const noexcept { return options_.head; }

  /// The lowest layer the backward pass enters: 0 when embeddings are trained, else the lowest
  /// selected layer, else layer_count() (only final norm or head are trained).
  constexpr index_t stop_layer() const noexcept {
    if (options_.embeddings) return 0;
    return layers_.empty() ? layer_count_ : layers_.lowest();
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
    return options_.embeddings || layer > stop_layer();
  }
  /// Whether any weight gradient of this layer is computed.
  constexpr bool weight_gradient(index_t layer) const noexcept {
    return in_range(layer) && layers_.contains(layer);
  }
  /// Whether the tensor with this role in this layer is trained. For tensors outside every layer
  /// pass layer = outside_layers.
  constexpr bool weight_gradient(index_t layer, parameter_role role) const noexcept {
    if (layer == outside_layers) {
      switch (role) {
        case parameter_role::embedding: return options_.embeddings;
        case parameter_role::final_norm: return options_.final_norm;
        case parameter_role::head: return options_.head;
        default: return false;
      }
    }
    return weight_gradient(layer) && options_.trained_roles.contains(role);
  }

 private:
  constexpr bool in_range(index_t layer) const noexcept {
    return layer >= 0 && layer < layer_count_;
  }

  index_t layer_count_;
  layer_set layers_;
  plan_options options_;
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
  return {layer_count, layers, options};
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
