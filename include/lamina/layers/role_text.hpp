// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Roles as text, both ways: the part of a selection behind its colon.
#pragma once

#include <string>
#include <string_view>

#include "lamina/layers/role_set.hpp"
#include "lamina/layers/selector.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

struct role_name {
  std::string_view name;
  role_set roles;
};

// Groups first, so that a text takes the shortest name that fits.
inline constexpr role_name role_names[] = {
    {"attention", attention_roles},
    {"mlp", mlp_roles},
    {"norms", norm_roles},
    {"attention.norm", roles(parameter_role::attention_norm)},
    {"attention.q", roles(parameter_role::attention_query)},
    {"attention.k", roles(parameter_role::attention_key)},
    {"attention.v", roles(parameter_role::attention_value)},
    {"attention.qkv", roles(parameter_role::attention_qkv)},
    {"attention.o", roles(parameter_role::attention_output)},
    {"attention.q_norm", roles(parameter_role::query_norm)},
    {"attention.k_norm", roles(parameter_role::key_norm)},
    {"mlp.norm", roles(parameter_role::mlp_norm)},
    {"mlp.gate", roles(parameter_role::mlp_gate)},
    {"mlp.up", roles(parameter_role::mlp_up)},
    {"mlp.gate_up", roles(parameter_role::mlp_gate_up)},
    {"mlp.down", roles(parameter_role::mlp_down)},
    {"mlp.router", roles(parameter_role::mlp_router)},
    {"other", roles(parameter_role::other)},
};
inline constexpr role_name outer_names[] = {
    {"embeddings", roles(parameter_role::embedding)},
    {"final_norm", roles(parameter_role::final_norm)},
    {"head", roles(parameter_role::head)},
};

// The names of a table for any of the roles `present`, with commas between.
template <std::size_t Size>
std::string names_within(role_name const (&names)[Size], role_set present) {
  std::string list;
  for (role_name const& known : names) {
    if (!known.roles.intersects(present)) continue;
    if (!list.empty()) list += ", ";
    list += known.name;
  }
  return list;
}

// attention.q+mlp: the union of the names between the plus signs.
inline role_set parse_roles(selection_source source, std::string_view text) {
  role_set all;
  for (std::size_t begin = 0;;) {
    std::size_t const plus = text.find('+', begin);
    std::string_view const name = text.substr(begin, plus - begin);
    role_set found;
    for (role_name const& known : role_names) {
      if (name == known.name) found = known.roles;
    }
    if (found.empty()) {
      source.fail("\"", name, "\" is no role, expected ", names_within(role_names, layer_roles));
    }
    all = all | found;
    if (plus == std::string_view::npos) return all;
    begin = plus + 1;
  }
}

}  // namespace detail

/// The roles of a text such as "mlp" or "attention.q+attention.k". Throws selection_error, with the
/// names there are, for any other.
///
/// attention, mlp, norms                   a branch with its norms; every norm inside a layer
/// attention. norm q k v qkv o q_norm k_norm     one role of the attention branch
/// mlp. norm gate up gate_up down router         one role of the feed-forward branch
/// other                                   what is in a layer and has none of these roles
inline role_set parse_roles(std::string_view text) {
  return detail::parse_roles({"parse_roles", text, text}, text);
}

/// The canonical text of roles of a layer: branches first, "none" for no role; parse_roles brings
/// the others back. Roles outside the layers have no name here.
inline std::string to_text(role_set roles) {
  std::string text;
  role_set left = roles & layer_roles;
  for (detail::role_name const& known : detail::role_names) {
    if (left.empty() || !(known.roles - left).empty()) continue;
    if (!text.empty()) text += '+';
    text += known.name;
    left = left - known.roles;
  }
  return text.empty() ? "none" : text;
}

LAMINA_NAMESPACE_END
