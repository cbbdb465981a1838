// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/layer_needs.hpp"

#include <doctest/doctest.h>

#include "lamina/layers/selector.hpp"

using namespace lamina;

namespace {

// How many of the six steps a stop layer takes for these roles.
constexpr int depth(role_set trained) {
  layer_needs const n(plan_backward(3, single_layer(1), {.trained_roles = trained}), 1);
  return n.mlp_inner + n.mlp_input + n.middle + n.attention_inner + n.attention_input + n.input;
}

}  // namespace

TEST_CASE("layer_needs: a stop layer goes as deep as its deepest trained tensor") {
  using role = parameter_role;
  static_assert(depth(roles(role::mlp_down)) == 0);
  static_assert(depth(roles(role::mlp_gate)) == 1 && depth(roles(role::mlp_up)) == 1);
  static_assert(depth(roles(role::mlp_gate_up)) == 1 && depth(roles(role::attention_qkv)) == 4);
  static_assert(depth(roles(role::mlp_norm)) == 2);
  static_assert(depth(roles(role::attention_output)) == 3);
  static_assert(depth(roles(role::attention_query)) == 4 && depth(roles(role::key_norm)) == 4);
  static_assert(depth(roles(role::attention_norm)) == 5);
  CHECK(depth(layer_roles) == 5);
}

TEST_CASE("layer_needs: layers above the stop layer hand everything down, layers below nothing") {
  auto const plan =
      plan_backward(3, single_layer(1), {.trained_roles = roles(parameter_role::mlp_down)});
  CHECK(layer_needs(plan, 2).input);
  CHECK(layer_needs(plan, 2).mlp_inner);
  CHECK_FALSE(layer_needs(plan, 0).mlp_inner);
  auto const embeddings = plan_backward(3, single_layer(1), {.embeddings = true});
  CHECK(layer_needs(embeddings, 0).input);
}

TEST_CASE("layer_needs: inputs are needed where the weights they meet are trained") {
  using role = parameter_role;
  auto const needs = [](role_set trained) {
    return layer_needs(plan_backward(3, single_layer(1), {.trained_roles = trained}), 1);
  };
  layer_needs const value = needs(roles(role::attention_value));
  CHECK((value.qkv && !value.output && !value.gate_up && !value.down));
  layer_needs const up = needs(roles(role::mlp_up));
  CHECK((up.gate_up && !up.qkv && !up.output && !up.down));
  layer_needs const all = needs(layer_roles);
  CHECK((all.qkv && all.output && all.gate_up && all.down));
}

TEST_CASE("layer_needs: a forward pass covers the backward passes that need no more") {
  auto const needs = [](role_set trained) {
    return layer_needs(plan_backward(3, single_layer(1), {.trained_roles = trained}), 1);
  };
  CHECK(needs(layer_roles).covers(needs(mlp_roles)));
  CHECK(needs(layer_roles).covers(layer_needs()));
  CHECK_FALSE(needs(mlp_roles).covers(needs(attention_roles)));
  CHECK_FALSE(needs(layer_roles).covers(layer_needs(plan_backward(3, single_layer(0)), 1)));
}
