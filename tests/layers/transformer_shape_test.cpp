// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/transformer_shape.hpp"

#include <doctest/doctest.h>

#include "lamina/layers/selector.hpp"
#include "tests/layers/published_shapes.hpp"

using namespace lamina;
using namespace lamina::testing;

TEST_CASE("transformer_shape: published models have the parameters they are known for") {
  // The numbers that transformers' num_parameters() gives.
  static_assert(smollm2_135m.parameter_count() == 134'515'008);
  static_assert(qwen3_1_7b.parameter_count() == 1'720'574'976);
  static_assert(qwen3_4b.parameter_count() == 4'022'468'096);
  static_assert(qwen3_8b.parameter_count() == 8'190'735'360);
  CHECK(smollm2_135m.parameters_of(0) == 3'540'096);
  CHECK(smollm2_135m.parameters_of(outside_layers) == 49152 * 576 + 576);
}

TEST_CASE("transformer_shape: a bias has the role of its weight, a tied head no parameters") {
  transformer_shape shape{.layer_count = 2,
                          .width = 10,
                          .query_width = 8,
                          .key_width = 4,
                          .head_count = 2,
                          .ffn_width = 12,
                          .vocab = 7};
  using role = parameter_role;
  CHECK(shape.role_parameters(role::attention_query) == 80);
  CHECK(shape.role_parameters(role::key_norm) == 0);
  CHECK(shape.role_parameters(role::head) == 70);
  CHECK(shape.role_parameters(role::other) == 0);
  shape.qkv_bias = shape.qk_norm = shape.tied_head = true;
  CHECK(shape.role_parameters(role::attention_query) == 88);
  CHECK(shape.matrix_elements(role::attention_query) == 80);
  CHECK(shape.role_parameters(role::attention_value) == 44);
  CHECK(shape.role_parameters(role::key_norm) == 4);
  CHECK(shape.role_parameters(role::head) == 0);
}

TEST_CASE("transformer_shape: trained parameters are those of the plan") {
  auto const middle = plan_backward(30, middle_layers(30, 10));
  CHECK(smollm2_135m.trained_parameter_count(middle) == 10 * 3'540'096);
  CHECK(smollm2_135m.trained_parameters_of(9, middle) == 0);
  CHECK(smollm2_135m.trained_parameters_of(10, middle) == 3'540'096);
  CHECK(smollm2_135m.trained_parameter_count(plan_full(30)) == 134'515'008);
  auto const norms =
      plan_backward(30, single_layer(3), {.trained_roles = norm_roles, .final_norm = true});
  CHECK(smollm2_135m.trained_parameter_count(norms) == 3 * 576);
  CHECK(smollm2_135m.trained_parameters_of(outside_layers, norms) == 576);
}
