// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/model/stacked_parameters.hpp"

#include <doctest/doctest.h>

#include <utility>
#include <vector>

#include "lamina/layers/selector.hpp"

using lamina::index_t;
using lamina::parameter_role;

namespace {

// Two layers of a matrix of 3 and a bias of 2 elements, in one block: matrices, then biases.
struct block {
  std::vector<float> values{0, 1, 2, 10, 11, 12, 3, 4, 13, 14};

  std::vector<lamina::stacked_tensor<float>> tensors() {
    return {{"up.weight", parameter_role::mlp_up, values.data(), 3},
            {"up.bias", parameter_role::mlp_up, values.data() + 6, 2, false}};
  }
};

}  // namespace

TEST_CASE("the tensors of a layer are slices of their stacks") {
  block b;
  lamina::stacked_parameters<float> const layers(2, b.tensors());
  CHECK(layers.layer_count() == 2);
  for (index_t layer = 0; layer < 2; ++layer) {
    auto const& parameters = layers[layer];
    REQUIRE(parameters.size() == 2);
    float const expected = 10.0f * static_cast<float>(layer);
    for (index_t i = 0; i < 3; ++i) {
      CHECK(parameters[0].weight[i] == expected + static_cast<float>(i));
    }
    for (index_t i = 0; i < 2; ++i) {
      CHECK(parameters[1].weight[i] == expected + 3 + static_cast<float>(i));
    }
    CHECK(parameters[0].weight.size == 3);
    CHECK(parameters[1].weight.size == 2);
    CHECK(parameters[0].layer == layer);
    CHECK(parameters[0].role == parameter_role::mlp_up);
    CHECK(parameters[0].decays);
    CHECK(!parameters[1].decays);
    CHECK(parameters[0].gradient.empty());
  }
  CHECK(layers[1][0].name == "layers.1.up.weight");
  CHECK(lamina::stacked_parameters<float>(2, b.tensors(), "h.")[0][1].name == "h.0.up.bias");
}

TEST_CASE("names survive a move of the list") {
  block b;
  lamina::stacked_parameters<float> first(2, b.tensors(), "");
  lamina::stacked_parameters<float> const layers(std::move(first));
  CHECK(layers[0][0].name == "0.up.weight");
  CHECK(layers[1][1].name == "1.up.bias");
}

TEST_CASE("only what a plan trains has gradients, without gaps") {
  block b;
  auto tensors = b.tensors();
  tensors[0].role = parameter_role::mlp_down;
  lamina::stacked_parameters<float> layers(2, tensors);

  auto const second_layer = lamina::plan_backward(2, lamina::single_layer(1));
  CHECK(layers.gradient_size(second_layer) == 5);
  std::vector<float> memory(5);
  layers.set_gradients(second_layer, memory);
  CHECK(layers[0][0].gradient.empty());
  CHECK(layers[0][1].gradient.empty());
  CHECK(layers[1][0].gradient.data == memory.data());
  CHECK(layers[1][0].gradient.size == 3);
  CHECK(layers[1][1].gradient.data == memory.data() + 3);
  CHECK(layers[1][1].gradient.size == 2);

  lamina::layer_set both;
  both.insert(0).insert(1);
  auto const biases =
      lamina::plan_backward(2, both, {.trained_roles = lamina::roles(parameter_role::mlp_up)});
  CHECK(layers.gradient_size(biases) == 4);
  layers.set_gradients(biases, {memory.data(), 4});
  CHECK(layers[0][0].gradient.empty());
  CHECK(layers[0][1].gradient.data == memory.data());
  CHECK(layers[1][0].gradient.empty());
  CHECK(layers[1][1].gradient.data == memory.data() + 2);
}

TEST_CASE("a list that cannot be is refused") {
  using list = lamina::stacked_parameters<float>;
  block b;
  CHECK_THROWS_WITH_AS(list(0, b.tensors()),
                       "stacked_parameters: layer_count is 0 and there are 2 tensors, expected at "
                       "least one of each",
                       lamina::config_error);
  CHECK_THROWS_AS(list(2, {}), lamina::config_error);
  auto tensors = b.tensors();
  tensors[1].name = tensors[0].name;
  CHECK_THROWS_WITH_AS(list(2, tensors),
                       "stacked_parameters: tensors 0 and 1 are both named up.weight",
                       lamina::config_error);
  tensors = b.tensors();
  tensors[1].weights = nullptr;
  CHECK_THROWS_WITH_AS(list(2, tensors),
                       "stacked_parameters: tensor 1 is named \"up.bias\", has no weights and size "
                       "2; expected a name, weights and a size >= 1",
                       lamina::config_error);
  tensors = b.tensors();
  tensors[0].size = 0;
  CHECK_THROWS_AS(list(2, tensors), lamina::config_error);
}

TEST_CASE("gradients that do not fit are refused, and nothing changes") {
  block b;
  lamina::stacked_parameters<float> layers(2, b.tensors());
  auto const plan = lamina::plan_backward(2, lamina::single_layer(0));
  std::vector<float> memory(5), small(4);
  layers.set_gradients(plan, memory);
  CHECK_THROWS_WITH_AS(
      layers.set_gradients(plan, small),
      "stacked_parameters::set_gradients: memory has 4 elements, the plan trains 5",
      lamina::shape_error);
  CHECK(layers[0][0].gradient.data == memory.data());
  CHECK_THROWS_WITH_AS(
      layers.set_gradients(lamina::plan_backward(3, lamina::single_layer(0)), memory),
      "stacked_parameters::gradient_size: the plan is for 3 layers, the model has 2",
      lamina::config_error);
}
