// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Parameters of an engine that keeps the tensors of all layers stacked, [layers, size] each: their
// slices as parameter_views, with names, and gradients where a plan wants them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lamina/core/error.hpp"
#include "lamina/core/parameter.hpp"
#include "lamina/layers/backward_plan.hpp"

LAMINA_NAMESPACE_BEGIN

/// One tensor of every layer.
///
/// name     of the tensor within its layer
/// weights  [layers, size], the host's
/// size     elements of one layer
/// decays   as in parameter_view
template <storage_scalar T>
struct stacked_tensor {
  std::string_view name;
  parameter_role role = parameter_role::other;
  T* weights = nullptr;
  index_t size = 0;
  bool decays = true;
};

/// The layers of such an engine. Holds names; weights and gradients stay the host's:
///
///   lamina::stacked_parameters<float> layers(
///       12, {{"attn.weight", role::attention_qkv, block + qkv, 3 * width * width}, ...});
///   std::vector<float> gradients(layers.gradient_size(plan));
///   layers.set_gradients(plan, gradients);
///
/// Tensor "attn.weight" of layer 7 is named "layers.7.attn.weight" and is layers[7][i], where i is
/// its place in the list.
template <storage_scalar T>
class stacked_parameters {
 public:
  /// Throws config_error unless layer_count >= 1 and every tensor has a name of its own, weights
  /// and a size >= 1.
  stacked_parameters(index_t layer_count, std::vector<stacked_tensor<T>> const& tensors,
                     std::string_view prefix = "layers.") {
    check(layer_count, tensors);
    names_.reserve(static_cast<std::size_t>(layer_count) * tensors.size());
    layers_.resize(static_cast<std::size_t>(layer_count));
    for (index_t layer = 0; layer < layer_count; ++layer) {
      for (stacked_tensor<T> const& t : tensors) {
        names_.push_back(detail::join(prefix, layer, ".", t.name));
        layers_[static_cast<std::size_t>(layer)].push_back(
            {names_.back(), layer, t.role, {t.weights + layer * t.size, t.size}, {}, t.decays});
      }
    }
  }
  stacked_parameters(stacked_parameters&&) = default;  // a copy's views would be of other names
  stacked_parameters& operator=(stacked_parameters&&) = default;

  index_t layer_count() const noexcept { return static_cast<index_t>(layers_.size()); }
  /// The tensors of a layer, in the order of the list.
  std::vector<parameter_view<T>> const& operator[](index_t layer) const noexcept {
    LAMINA_ASSERT(layer >= 0 && layer < layer_count());
    return layers_[static_cast<std::size_t>(layer)];
  }

  /// Elements that `plan` trains in these layers: the memory that set_gradients wants. Throws
  /// config_error if the plan is for another number of layers.
  index_t gradient_size(backward_plan const& plan) const {
    check_plan("gradient_size", plan);
    index_t size = 0;
    for (auto const& layer : layers_) {
      for (parameter_view<T> const& p : layer) size += trained(plan, p) ? p.weight.size : 0;
    }
    return size;
  }

  /// Gives every tensor that `plan` trains its gradient, one after another in `memory`
  /// [gradient_size(plan)], and the others none.
  ///
  /// Throws as gradient_size does, and shape_error if the memory has another size; nothing has
  /// changed then.
  void set_gradients(backward_plan const& plan, vector_view<T> memory) {
    if (index_t const size = gradient_size(plan); memory.size != size) {
      throw_shape_error("stacked_parameters::set_gradients: memory has ", memory.size,
                        " elements, the plan trains ", size);
    }
    index_t first = 0;
    for (auto& layer : layers_) {
      for (parameter_view<T>& p : layer) {
        p.gradient = trained(plan, p) ? memory.subview(first, p.weight.size) : vector_view<T>{};
        first += p.gradient.size;
      }
    }
  }

 private:
  static bool trained(backward_plan const& plan, parameter_view<T> const& parameter) noexcept {
    return plan.weight_gradient(parameter.layer, parameter.role);
  }
  void check_plan(char const* function, backward_plan const& plan) const {
    if (plan.layer_count() == layer_count()) return;
    throw_config_error("stacked_parameters::", function, ": the plan is for ", plan.layer_count(),
                       " layers, the model has ", layer_count());
  }
  static void check(index_t layer_count, std::vector<stacked_tensor<T>> const& tensors) {
    if (layer_count < 1 || tensors.empty()) {
      throw_config_error("stacked_parameters: layer_count is ", layer_count, " and there are ",
                         tensors.size(), " tensors, expected at least one of each");
    }
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      stacked_tensor<T> const& t = tensors[i];
      if (t.name.empty() || t.weights == nullptr || t.size < 1) {
        throw_config_error("stacked_parameters: tensor ", i, " is named \"", t.name, "\", ",
                           t.weights == nullptr ? "has no weights" : "has weights", " and size ",
                           t.size, "; expected a name, weights and a size >= 1");
      }
      for (std::size_t j = 0; j < i; ++j) {
        if (tensors[j].name == t.name) {
          throw_config_error("stacked_parameters: tensors ", j, " and ", i, " are both named ",
                             t.name);
        }
      }
    }
  }

  std::vector<std::string> names_;  // views point into these
  std::vector<std::vector<parameter_view<T>>> layers_;
};

LAMINA_NAMESPACE_END
