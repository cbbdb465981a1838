// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/tensor_selection.hpp"

#include <doctest/doctest.h>

using namespace lamina;

namespace {

std::vector<std::string> const names = {
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.up_proj.bias",
    "model.layers.1.mlp.up_proj.weight",
    "model.norm.weight",
    "visual.blocks.0.attn.qkv.weight",
};

std::vector<std::string> selected(tensor_selection const& selection,
                                  std::vector<model_tensor> const& tensors) {
  std::vector<std::string> result;
  for (model_tensor const& tensor : tensors) {
    if (selection.contains(tensor)) result.emplace_back(tensor.name);
  }
  return result;
}

}  // namespace

TEST_CASE("model_tensors: names become places") {
  auto const tensors = model_tensors(names);
  REQUIRE(tensors.size() == 6);
  CHECK(tensors[0].layer == outside_layers);
  CHECK(tensors[0].trainable());
  CHECK(tensors[3].layer == 1);
  CHECK(tensors[3].role == parameter_role::mlp_up);
  CHECK_FALSE(tensors[5].trainable());
  CHECK(model_tensors({"h.0.mlp.c_fc.weight"}, {.layer_count = 8, .first_layer = 4})[0].layer == 4);
}

TEST_CASE("tensor_selection: a pattern picks single tensors, its cover is layers and roles") {
  auto const tensors = model_tensors(names);
  tensor_selection const selection(parameter_selection(2).add(single_layer(1)),
                                   {{name_pattern("0.*bias$")}}, tensors);
  CHECK(selected(selection, tensors) == std::vector<std::string>{names[2], names[3]});
  CHECK(selection.covering() ==
        parameter_selection(2).add(layer_range(0, 1), roles(parameter_role::mlp_up)));
  CHECK(selection.by_role() == parameter_selection(2).add(single_layer(1)));
}

TEST_CASE("tensor_selection: an inverted pattern picks the rest, of what can be trained") {
  auto const tensors = model_tensors(names);
  tensor_selection const selection(parameter_selection(2), {{name_pattern("layers"), true}},
                                   tensors);
  CHECK(selected(selection, tensors) == std::vector<std::string>{names[0], names[4]});
  CHECK(selection.covering() == parameter_selection(2).add_outside(
                                    roles(parameter_role::embedding, parameter_role::final_norm)));
}

TEST_CASE("tensor_selection: of a stacked tensor, roles pick slices and patterns all of them") {
  std::vector<model_tensor> const tensors = model_tensors({"params/layers/mlp/wo/kernel"});
  REQUIRE(tensors[0].stacked);
  parameter_selection const two =
      parameter_selection(4).add(layer_range(1, 2), roles(parameter_role::mlp_down));
  tensor_selection const by_role(two, {}, tensors);
  CHECK(by_role.contains(tensors[0]));
  CHECK(by_role.covering() == two);
  tensor_selection const by_name(parameter_selection(4), {{name_pattern("wo")}}, tensors);
  CHECK(by_name.covering() ==
        parameter_selection(4).add(layer_range(0, 3), roles(parameter_role::mlp_down)));
}

TEST_CASE("tensor_selection: equal by roles and patterns; a tensor of another model is refused") {
  auto const tensors = model_tensors(names);
  parameter_selection const one = parameter_selection(2).add(single_layer(1));
  CHECK(tensor_selection(one) == tensor_selection(one, {}, tensors));
  CHECK_FALSE(tensor_selection(one) == tensor_selection(one, {{name_pattern("up")}}, tensors));
  CHECK_THROWS_AS(tensor_selection(parameter_selection(1), {{name_pattern("layers.1")}}, tensors),
                  selection_error);
}
