// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How far a backward pass goes inside one decoder layer: a stop layer ends after the last tensor it
// trains.
#pragma once

#include "lamina/layers/backward_plan.hpp"

LAMINA_NAMESPACE_BEGIN

/// What the backward pass of a pre-norm decoder layer has to compute, from its output down. Each
/// step implies the ones above it.
struct layer_needs {
  bool mlp_inner;        // through down_proj, to the gate and up projections
  bool mlp_input;        // through them, to the norm
  bool middle;           // through the mlp norm, to the attention branch
  bool attention_inner;  // through o_proj and the attention, to the query, key, value heads
  bool attention_input;  // through their projections, to the norm
  bool input;            // through the attention norm, to the layer below

  constexpr layer_needs(backward_plan const& plan, index_t layer) {
    using role = parameter_role;
    auto const trains = [&](auto... r) { return (plan.weight_gradient(layer, r) || ...); };
    input = plan.activation_gradient(layer);
    attention_input = input || trains(role::attention_norm);
    attention_inner =
        attention_input || trains(role::attention_query, role::attention_key, role::attention_value,
                                  role::attention_qkv, role::query_norm, role::key_norm);
    middle = attention_inner || trains(role::attention_output);
    mlp_input = middle || trains(role::mlp_norm);
    mlp_inner = mlp_input || trains(role::mlp_gate, role::mlp_up, role::mlp_gate_up);
  }
};

LAMINA_NAMESPACE_END
