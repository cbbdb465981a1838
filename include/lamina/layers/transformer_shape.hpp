// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shape of a decoder-only transformer in integers: how many parameters each of its tensors has.
#pragma once

#include "lamina/layers/backward_plan.hpp"

LAMINA_NAMESPACE_BEGIN

/// A transformer of the Llama and Qwen family, as far as bytes and operations depend on it.
///
/// query_width  columns of all query heads
/// key_width    columns of all key heads, and of all value heads
/// tied_head    the head is the embedding matrix
/// qkv_bias     query, key and value projections have a bias
/// qk_norm      query and key heads are normalised
struct transformer_shape {
  index_t layer_count = 0;
  index_t width = 0;
  index_t query_width = 0;
  index_t key_width = 0;
  index_t head_count = 0;
  index_t ffn_width = 0;
  index_t vocab = 0;
  bool tied_head = false;
  bool qkv_bias = false;
  bool qk_norm = false;

  /// Weights of a layer's linear map with this role; 0 for other roles.
  constexpr index_t matrix_elements(parameter_role role) const noexcept {
    switch (role) {
      case parameter_role::attention_query:
      case parameter_role::attention_output: return width * query_width;
      case parameter_role::attention_key:
      case parameter_role::attention_value: return width * key_width;
      case parameter_role::mlp_gate:
      case parameter_role::mlp_up:
      case parameter_role::mlp_down: return width * ffn_width;
      default: return 0;
    }
  }
  /// Parameters with this role, biases included: of one layer, or outside the layers. A tied head
  /// has none of its own.
  constexpr index_t role_parameters(parameter_role role) const noexcept {
    switch (role) {
      case parameter_role::embedding: return vocab * width;
      case parameter_role::head: return tied_head ? 0 : vocab * width;
      case parameter_role::attention_norm:
      case parameter_role::mlp_norm:
      case parameter_role::final_norm: return width;
      case parameter_role::query_norm:
      case parameter_role::key_norm: return qk_norm ? query_width / head_count : 0;
      case parameter_role::attention_query:
        return matrix_elements(role) + (qkv_bias ? query_width : 0);
      case parameter_role::attention_key:
      case parameter_role::attention_value:
        return matrix_elements(role) + (qkv_bias ? key_width : 0);
      default: return matrix_elements(role);
    }
  }
  /// Parameters with one of these roles: of one layer, or outside the layers.
  constexpr index_t role_parameters(role_set wanted) const noexcept {
    index_t count = 0;
    for (index_t r = 0; r < parameter_role_count; ++r) {
      auto const role = static_cast<parameter_role>(r);
      if (wanted.contains(role)) count += role_parameters(role);
    }
    return count;
  }
  /// Parameters of one layer, or of what lies outside the layers (outside_layers).
  constexpr index_t parameters_of(index_t layer) const noexcept {
    return role_parameters(layer == outside_layers ? outer_roles : layer_roles);
  }
  /// Parameters of one layer, or outside the layers, that the plan trains.
  constexpr index_t trained_parameters_of(index_t layer, backward_plan const& plan) const noexcept {
    return role_parameters(plan.selection().roles(layer));
  }
  /// Parameters of the whole model.
  constexpr index_t parameter_count() const noexcept {
    return parameters_of(outside_layers) + layer_count * parameters_of(0);
  }
  /// Parameters that the plan trains.
  constexpr index_t trained_parameter_count(backward_plan const& plan) const noexcept {
    index_t count = 0;
    for (index_t layer = outside_layers; layer < layer_count; ++layer) {
      count += trained_parameters_of(layer, plan);
    }
    return count;
  }

  friend constexpr bool operator==(transformer_shape const&, transformer_shape const&) = default;
};

LAMINA_NAMESPACE_END
