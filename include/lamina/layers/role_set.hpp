// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A set of parameter roles: which tensors inside a selected layer are trained.
#pragma once

#include <cstdint>

#include "lamina/fwd.hpp"

LAMINA_NAMESPACE_BEGIN

/// Roles as bits. A value, usable in constant expressions.
struct role_set {
  std::uint32_t bits = 0;

  constexpr bool contains(parameter_role role) const noexcept {
    return ((bits >> static_cast<unsigned>(role)) & 1u) != 0;
  }
  constexpr bool empty() const noexcept { return bits == 0; }
  constexpr bool intersects(role_set other) const noexcept { return (bits & other.bits) != 0; }

  friend constexpr role_set operator|(role_set a, role_set b) noexcept { return {a.bits | b.bits}; }
  friend constexpr role_set operator&(role_set a, role_set b) noexcept { return {a.bits & b.bits}; }
  friend constexpr role_set operator-(role_set a, role_set b) noexcept {
    return {a.bits & ~b.bits};
  }
  friend constexpr bool operator==(role_set, role_set) noexcept = default;
};

/// The set of the given roles.
template <class... Roles>
constexpr role_set roles(Roles... role) noexcept {
  return {((std::uint32_t{1} << static_cast<unsigned>(role)) | ... | std::uint32_t{0})};
}

/// Everything on the attention branch of a layer: its norm, projections (fused or
/// not) and query/key norms.
inline constexpr role_set attention_roles = roles(
    parameter_role::attention_norm, parameter_role::attention_query, parameter_role::attention_key,
    parameter_role::attention_value, parameter_role::attention_output, parameter_role::query_norm,
    parameter_role::key_norm, parameter_role::attention_qkv);

/// Everything on the feed-forward branch of a layer: its norm, projections (fused or not)
/// and the router of a mixture of experts.
inline constexpr role_set mlp_roles =
    roles(parameter_role::mlp_norm, parameter_role::mlp_gate, parameter_role::mlp_up,
          parameter_role::mlp_down, parameter_role::mlp_gate_up, parameter_role::mlp_router);

/// Norms inside a layer.
inline constexpr role_set norm_roles =
    roles(parameter_role::attention_norm, parameter_role::query_norm, parameter_role::key_norm,
          parameter_role::mlp_norm);

/// Every tensor of a layer, `other` included.
inline constexpr role_set layer_roles = attention_roles | mlp_roles | roles(parameter_role::other);

/// What lies outside the layers and can be trained.
inline constexpr role_set outer_roles =
    roles(parameter_role::embedding, parameter_role::final_norm, parameter_role::head);

LAMINA_NAMESPACE_END
