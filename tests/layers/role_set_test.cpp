// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/role_set.hpp"

#include <doctest/doctest.h>

using namespace lamina;

TEST_CASE("role_set: the roles of a layer are those of its two branches and other") {
  static_assert((attention_roles & mlp_roles).empty());
  static_assert(((attention_roles | mlp_roles) | roles(parameter_role::other)) == layer_roles);
  static_assert(layer_roles - mlp_roles == (attention_roles | roles(parameter_role::other)));
  static_assert((norm_roles - layer_roles).empty());
  static_assert(norm_roles.intersects(attention_roles) && norm_roles.intersects(mlp_roles));
  static_assert(roles().empty() && !roles().intersects(layer_roles));
  CHECK_FALSE(layer_roles.empty());
}

TEST_CASE("role_set: every role is in exactly one of layer roles and outer roles") {
  for (index_t i = 0; i < parameter_role_count; ++i) {
    auto const role = static_cast<parameter_role>(i);
    CAPTURE(i);
    CHECK(layer_roles.contains(role) != outer_roles.contains(role));
    CHECK(roles(role).contains(role));
    for (index_t j = 0; j < parameter_role_count; ++j) {
      CHECK(roles(role).contains(static_cast<parameter_role>(j)) == (i == j));
    }
  }
}
