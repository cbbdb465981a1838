// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/role_text.hpp"

#include <doctest/doctest.h>

using namespace lamina;

TEST_CASE("parse_roles: single roles, branches and their union") {
  CHECK(parse_roles("attention.q") == roles(parameter_role::attention_query));
  CHECK(parse_roles("attention.q+attention.k") ==
        roles(parameter_role::attention_query, parameter_role::attention_key));
  CHECK(parse_roles("mlp") == mlp_roles);
  CHECK(parse_roles("mlp.router+attention") ==
        (attention_roles | roles(parameter_role::mlp_router)));
  CHECK(parse_roles("norms+mlp.norm") == norm_roles);
}

TEST_CASE("to_text: parse_roles brings back every set of roles of a layer") {
  CHECK(to_text(attention_roles) == "attention");
  CHECK(to_text(mlp_roles | roles(parameter_role::other)) == "mlp+other");
  CHECK(to_text(norm_roles) == "norms");
  CHECK(to_text(roles(parameter_role::attention_key, parameter_role::attention_query)) ==
        "attention.q+attention.k");
  CHECK(to_text(role_set{}) == "none");
  CHECK(to_text(outer_roles) == "none");
  int sets = 0;
  for (std::uint32_t bits = 1; bits < (1u << parameter_role_count); ++bits) {
    role_set const chosen{bits};
    if (!(chosen - layer_roles).empty()) continue;
    if (!(parse_roles(to_text(chosen)) == chosen)) FAIL(to_text(chosen));
    ++sets;
  }
  CHECK(sets == (1 << 15) - 1);
}

TEST_CASE("parse_roles: an unknown role is refused with the names there are") {
  CHECK_THROWS_WITH_AS(
      parse_roles("mlp+attention.w"),
      "parse_roles: \"mlp+attention.w\" in \"mlp+attention.w\": \"attention.w\" is no role, "
      "expected attention, mlp, norms, attention.norm, attention.q, attention.k, attention.v, "
      "attention.qkv, attention.o, attention.q_norm, attention.k_norm, mlp.norm, mlp.gate, mlp.up, "
      "mlp.gate_up, mlp.down, mlp.router, other",
      selection_error);
  CHECK_THROWS_AS(parse_roles(""), selection_error);
  CHECK_THROWS_AS(parse_roles("mlp+"), selection_error);
  CHECK_THROWS_AS(parse_roles("embeddings"), selection_error);
}
