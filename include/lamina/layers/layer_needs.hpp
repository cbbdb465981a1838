// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a plan asks of one decoder layer: how far its backward pass goes, and so what its forward
// pass has to keep.
#pragma once

#include "lamina/layers/backward_plan.hpp"

LAMINA_NAMESPACE_BEGIN

/// The needs of a pre-norm decoder layer. All false in a layer below the stop layer, and in a pass
/// without a plan.
struct layer_needs {
  // How far the backward pass goes, from the layer's output down. Each step implies the ones above
  // it; a stop layer ends after the last tensor it trains.
  bool mlp_inner = false;        ///< through down_proj, to the gate and up projections
  bool mlp_input = false;        ///< through them, to the norm
  bool middle = false;           ///< through the mlp norm, to the attention branch
  bool attention_inner = false;  ///< through o_proj and the attention, to query, key, value heads
  bool attention_input = false;  ///< through their projections, to the norm
  bool input = false;            ///< through the attention norm, to the layer below

  // Which matrices need their input for a weight gradient.
  bool down = false;
  bool gate_up = false;
  bool output = false;
  bool qkv = false;

  constexpr layer_needs() = default;
  constexpr layer_needs(backward_plan const& plan, index_t layer) {
    using role = parameter_role;
    auto const trains = [&](auto... r) { return (plan.weight_gradient(layer, r) || ...); };
    down = trains(role::mlp_down);
    gate_up = trains(role::mlp_gate, role::mlp_up, role::mlp_gate_up);
    output = trains(role::attention_output);
    qkv = trains(role::attention_query, role::attention_key, role::attention_value,
                 role::attention_qkv);

    input = plan.activation_gradient(layer);
    attention_input = input || trains(role::attention_norm);
    attention_inner = attention_input || qkv || trains(role::query_norm, role::key_norm);
    middle = attention_inner || output;
    mlp_input = middle || trains(role::mlp_norm);
    mlp_inner = mlp_input || gate_up;
  }

  /// Whether a forward pass for these needs kept all that a backward pass for `other` reads.
  constexpr bool covers(layer_needs const& other) const noexcept {
    using member = bool layer_needs::*;
    for (member const need :
         {&layer_needs::mlp_inner, &layer_needs::mlp_input, &layer_needs::middle,
          &layer_needs::attention_inner, &layer_needs::attention_input, &layer_needs::input,
          &layer_needs::down, &layer_needs::gate_up, &layer_needs::output, &layer_needs::qkv}) {
      if (other.*need && !(this->*need)) return false;
    }
    return true;
  }
};

LAMINA_NAMESPACE_END
