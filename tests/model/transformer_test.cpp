// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/model/transformer.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "lamina/layers/selector.hpp"
#include "tests/support/minimal_model.hpp"

using namespace lamina;
using testing::minimal_model;

namespace {

// An engine that knows nothing of lamina: its traits are written from outside.
struct foreign_engine {
  std::vector<float> block_weights[3];
  int blocks = 3;
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
