// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Declarations and enumerations that several floors share.
#pragma once

#include <cstdint>

#include "lamina/config.hpp"

LAMINA_NAMESPACE_BEGIN

template <class T>
struct vector_view;
template <class T>
struct matrix_view;
struct bf16;
struct f16;

/// What a tensor does in a transformer. A bias has the role of the weight it belongs to.
///
/// attention_qkv and mlp_gate_up are fused projections: one tensor that does the work of several
/// roles, so that none of these alone can be trained in it. attention_qkv also stands for a key and
/// value projection in one.
enum class parameter_role : std::uint8_t {
  embedding,
  attention_norm,
  attention_query,
  attention_key,
  attention_value,
  attention_output,
  query_norm,
  key_norm,
  mlp_norm,
  mlp_gate,
  mlp_up,
  mlp_down,
  final_norm,
  head,
  other,
  attention_qkv,
  mlp_gate_up,
  mlp_router,
};

/// Number of roles.
inline constexpr index_t parameter_role_count = 18;

/// The layer index of a parameter that belongs to no decoder layer.
inline constexpr index_t outside_layers = -1;

LAMINA_NAMESPACE_END
