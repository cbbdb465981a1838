// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/model/transformer.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "lamina/layers/selector.hpp"
#include "lamina/layers/tensor_selection_text.hpp"
#include "tests/support/minimal_model.hpp"

using namespace lamina;
using testing::minimal_model;

namespace {

// An engine that knows nothing of lamina: its traits are written from outside.
struct foreign_engine {
  std::vector<float> block_weights[3];
  int blocks = 3;
};

// Two layers with a weight and a bias of one role each.
struct biased_model {
  index_t layer_count() const { return 2; }
  std::vector<parameter_view<float>> parameters(index_t layer) {
    static char const* const names[] = {"h.0.mlp.c_fc.weight", "h.0.mlp.c_fc.bias",
                                        "h.1.mlp.c_fc.weight", "h.1.mlp.c_fc.bias"};
    std::vector<parameter_view<float>> list;
    for (index_t i = 2 * layer; i < 2 * layer + 2; ++i) {
      vector_view<float> const weight(values + i, 1), gradient(gradients + i, 1);
      list.push_back({names[i], layer, parameter_role::mlp_up, weight, gradient});
    }
    return list;
  }
  float values[4] = {}, gradients[4] = {};
};

}  // namespace

template <>
struct lamina::model_traits<foreign_engine> {
  static index_t layer_count(foreign_engine const& e) { return e.blocks; }
  static std::vector<parameter_view<float>> parameters(foreign_engine& e, index_t layer) {
    static char const* const names[] = {"b0", "b1", "b2"};
    return {{names[layer], layer, parameter_role::attention_query, e.block_weights[layer], {}}};
  }
};

TEST_CASE("the ladder: an untouched engine is layered, not trainable; members make a model whole") {
  static_assert(layered_model<foreign_engine>);
  static_assert(!whole_model<foreign_engine> && !trainable_model<foreign_engine>);
  static_assert(trainable_model<minimal_model<float>>);
  static_assert(std::is_same_v<model_scalar_t<foreign_engine>, float>);
  static_assert(!layered_model<std::vector<float>>);
  static_assert(prefix_model<testing::minimal_prefix_model<float>>);
  static_assert(!prefix_model<minimal_model<float>>);
  static_assert(std::is_same_v<model_stream_t<testing::minimal_prefix_model<double>>, double>);
  static_assert(std::is_same_v<model_logit_t<minimal_model<float>>, float>);
  foreign_engine engine;
  CHECK(all_parameters(engine).size() == 3);
}

TEST_CASE("all_parameters: outer ones first, then layer by layer") {
  minimal_model<float> model(2, 3);
  auto const parameters = all_parameters(model);
  REQUIRE(parameters.size() == 3);
  CHECK(parameters[0].name == "embedding");
  CHECK(parameters[0].layer == outside_layers);
  CHECK(parameters[1].name == "layers.0.weight");
  CHECK(parameters[2].layer == 1);
}

TEST_CASE("trained_parameters: exactly what the plan trains") {
  minimal_model<float> model(4, 3);
  auto const names = [&](backward_plan const& plan) {
    std::vector<std::string> result;
    for (auto const& p : trained_parameters(model, plan)) result.emplace_back(p.name);
    return result;
  };
  CHECK(names(plan_backward(4, single_layer(2))) == std::vector<std::string>{"layers.2.weight"});
  CHECK(names(plan_backward(4, middle_layers(4, 2), {.embeddings = true})) ==
        std::vector<std::string>{"embedding", "layers.1.weight", "layers.2.weight"});
}

TEST_CASE("trained_parameters: a plan the model cannot follow is refused with its reason") {
  minimal_model<float> model(4, 3);
  CHECK_THROWS_WITH_AS(trained_parameters(model, plan_backward(5, single_layer(1))),
                       "trained_parameters: the plan is for 5 layers, the model has 4",
                       config_error);
  CHECK_THROWS_WITH_AS(
      trained_parameters(model,
                         plan_backward(4, single_layer(1), {.trained_roles = attention_roles})),
      "trained_parameters: layer 1 is selected, but none of its tensors has a trained role",
      selection_error);
  CHECK_THROWS_WITH_AS(
      trained_parameters(model, plan_backward(4, single_layer(1), {.final_norm = true})),
      "trained_parameters: the plan trains final_norm, the model lists no such parameter outside "
      "its layers",
      config_error);
  foreign_engine engine;
  CHECK_THROWS_AS(trained_parameters(engine, plan_backward(3, {}, {.head = true})), config_error);
}

TEST_CASE("trained_parameters: a pattern trains exactly the tensors it matches") {
  biased_model model;
  auto const tensors = model_tensors(model);
  auto const selection = parse_selection("/bias$/", 2, tensors);
  std::vector<std::string> names;
  for (auto const& p : trained_parameters(model, selection)) names.emplace_back(p.name);
  CHECK(names == std::vector<std::string>{"h.0.mlp.c_fc.bias", "h.1.mlp.c_fc.bias"});
  backward_plan const plan = plan_backward(2, selection.covering());
  CHECK(trained_parameters(model, plan).size() == 4);  // by role the biases are like the weights
  CHECK(trained_parameters(model, parse_selection("1:mlp", 2, tensors)).size() == 2);
}

TEST_CASE("trained_parameters: a selection read for other tensors is refused, not passed over") {
  biased_model model;
  std::vector<std::string> const renamed = {"h.0.mlp.fc1.weight", "h.1.mlp.fc1.weight"};
  CHECK_THROWS_WITH_AS(
      trained_parameters(model, parse_selection("/0.*fc1/", 2, model_tensors(renamed))),
      "trained_parameters: /0.*fc1/ selects no tensor of the model", selection_error);
  std::vector<std::string> const other_roles = {"h.0.mlp.c_fc.weight", "h.1.mlp.down.bias"};
  CHECK_THROWS_WITH_AS(
      trained_parameters(model, parse_selection("/c_fc/", 2, model_tensors(other_roles))),
      "trained_parameters: h.1.mlp.c_fc.weight is selected, but was not among the tensors that the "
      "selection was read for, or had another layer or role there",
      selection_error);
  CHECK_THROWS_AS(trained_parameters(model, parse_selection("1:attention", 2)), selection_error);
  CHECK_THROWS_AS(trained_parameters(model, parse_selection("1", 3)), config_error);
}
