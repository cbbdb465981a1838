// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/parameter_selection.hpp"

#include <doctest/doctest.h>

#include <type_traits>

#include "lamina/layers/selector.hpp"

using namespace lamina;

static_assert(std::is_trivially_copyable_v<parameter_selection>);
static_assert(sizeof(parameter_selection) < 4096);

TEST_CASE("parameter_selection: every layer has roles of its own, in constant expressions") {
  constexpr parameter_selection s = parameter_selection(6)
                                        .add(layer_range(2, 3), mlp_roles)
                                        .add(single_layer(3), roles(parameter_role::attention_key))
                                        .add_outside(roles(parameter_role::head));
  static_assert(s.layers() == layer_range(2, 3));
  static_assert(s.roles(2) == mlp_roles);
  static_assert(s.roles(3) == (mlp_roles | roles(parameter_role::attention_key)));
  static_assert(s.roles(1).empty() && s.roles(6).empty() && s.roles(-2).empty());
  static_assert(s.contains(outside_layers, parameter_role::head));
  static_assert(!s.contains(outside_layers, parameter_role::embedding));
  static_assert(!s.contains(2, parameter_role::head));
  CHECK_FALSE(s.empty());
  CHECK(parameter_selection(6).empty());
}

TEST_CASE("parameter_selection: roles that cannot be in a place are not added there") {
  parameter_selection s(2);
  s.add(single_layer(0), outer_roles).add_outside(layer_roles);
  CHECK(s.empty());
  CHECK(s == parameter_selection(2));
}

TEST_CASE("parameter_selection: the union holds both, and nothing else") {
  parameter_selection const a = parameter_selection(4).add(single_layer(0), mlp_roles);
  parameter_selection const b = parameter_selection(4)
                                    .add(layer_range(0, 1), attention_roles)
                                    .add_outside(roles(parameter_role::embedding));
  parameter_selection const both = a | b;
  CHECK(both.contains(a));
  CHECK(both.contains(b));
  CHECK_FALSE(a.contains(b));
  CHECK(both == (b | a));
  CHECK(both.roles(0) == (attention_roles | mlp_roles));
  CHECK(both.roles(1) == attention_roles);
  CHECK(both.roles(outside_layers) == roles(parameter_role::embedding));
}

TEST_CASE("parameter_selection: layers a model lacks are refused and change nothing") {
  parameter_selection s(3);
  CHECK_THROWS_WITH_AS(s.add(layer_range(1, 3)),
                       "parameter_selection: layer 3 is selected, the model has layers 0..2",
                       selection_error);
  CHECK(s.empty());
  CHECK_THROWS_WITH_AS(parameter_selection(0),
                       "parameter_selection: layer_count is 0, expected 1..512", config_error);
  CHECK_THROWS_WITH_AS(parameter_selection(513),
                       "parameter_selection: layer_count is 513, expected 1..512", config_error);
  CHECK_THROWS_WITH_AS(s | parameter_selection(4),
                       "parameter_selection: one is of 3 layers, the other of 4", config_error);
}
