// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/backward_plan.hpp"

#include <doctest/doctest.h>

#include "lamina/core/random.hpp"
#include "lamina/layers/selector.hpp"

using namespace lamina;

namespace {

// What the pass must do, derived from what a gradient needs and not from the plan's own rules: a
// tensor's gradient needs the gradient at its layer's output, which needs the activation gradient
// of every layer above.
void check_against_first_principles(backward_plan const& plan) {
  index_t const layer_count = plan.layer_count();
  for (index_t layer = -2; layer < layer_count + 2; ++layer) {
    CAPTURE(layer);
    bool const exists = layer >= 0 && layer < layer_count;
    bool something_below = plan.trains_embeddings();
    for (index_t below = 0; below < layer; ++below) something_below |= plan.weight_gradient(below);
    CHECK(plan.activation_gradient(layer) == (exists && something_below));
    CHECK(plan.saved_activations(layer) ==
          (exists && (something_below || plan.weight_gradient(layer))));
    if (!exists) CHECK_FALSE(plan.weight_gradient(layer));
  }
  CHECK(plan.frozen_prefix() == plan.stop_layer());
}

}  // namespace

TEST_CASE("plan_backward: the paper's middle five are usable in constant expressions") {
  constexpr backward_plan plan = plan_backward(28, middle_layers(28, 5));
  static_assert(plan.stop_layer() == 11 && plan.frozen_prefix() == 11);
  static_assert(!plan.saved_activations(10) && plan.saved_activations(11));
  static_assert(!plan.activation_gradient(11) && plan.activation_gradient(12));
  static_assert(plan.weight_gradient(15) && !plan.weight_gradient(16));
  static_assert(plan.activation_gradient(27) && !plan.activation_gradient(28));
  static_assert(!plan.weight_gradient(outside_layers, parameter_role::head));
  CHECK(plan.layer_count() == 28);
}

TEST_CASE("plan_backward: every single-layer plan stops at its layer and nowhere else") {
  for (index_t const layer_count : {1, 2, 7, 28, 64, 65}) {
    for (index_t layer = 0; layer < layer_count; ++layer) {
      CAPTURE(layer_count);
      CAPTURE(layer);
      backward_plan const plan = plan_backward(layer_count, single_layer(layer));
      CHECK(plan.stop_layer() == layer);
      check_against_first_principles(plan);
      index_t weight_gradients = 0, activation_gradients = 0, saved = 0;
      for (index_t l = 0; l < layer_count; ++l) {
        weight_gradients += plan.weight_gradient(l);
        activation_gradients += plan.activation_gradient(l);
        saved += plan.saved_activations(l);
      }
      CHECK(weight_gradients == 1);
      CHECK(activation_gradients == layer_count - 1 - layer);
      CHECK(saved == layer_count - layer);
    }
  }
}

TEST_CASE("plan_backward: random selections with and without embeddings follow the chain rule") {
  counter_generator random(3);
  for (int i = 0; i < 200; ++i) {
    index_t const layer_count = 1 + static_cast<index_t>(random.below(40));
    layer_set layers;
    for (index_t layer = 0; layer < layer_count; ++layer) {
      if (random.below(4) == 0) layers.insert(layer);
    }
    plan_options const options{.embeddings = random.below(2) == 0,
                               .final_norm = random.below(2) == 0,
                               .head = random.below(2) == 0};
    if (layers.empty() && !options.embeddings && !options.final_norm && !options.head) continue;
    check_against_first_principles(plan_backward(layer_count, layers, options));
  }
}

TEST_CASE("plan_backward: roles narrow the tensors of selected layers only") {
  constexpr backward_plan plan =
      plan_backward(6, layer_range(2, 3), {.trained_roles = mlp_roles, .final_norm = true});
  static_assert(plan.weight_gradient(2, parameter_role::mlp_up));
  static_assert(!plan.weight_gradient(2, parameter_role::attention_query));
  static_assert(!plan.weight_gradient(4, parameter_role::mlp_up));
  static_assert(plan.weight_gradient(outside_layers, parameter_role::final_norm));
  static_assert(!plan.weight_gradient(outside_layers, parameter_role::head));
  static_assert(!plan.weight_gradient(outside_layers, parameter_role::embedding));
  static_assert(!plan.weight_gradient(outside_layers, parameter_role::mlp_up));
  static_assert(!plan.weight_gradient(6, parameter_role::mlp_up));
  CHECK(plan.trained_roles() == mlp_roles);
}

TEST_CASE("plan_backward: a parameter_selection gives every layer roles of its own") {
  constexpr backward_plan plan =
      plan_backward(6, parameter_selection(6)
                           .add(single_layer(2), mlp_roles)
                           .add(single_layer(4), roles(parameter_role::attention_output))
                           .add_outside(roles(parameter_role::final_norm)));
  static_assert(plan.layers() == (single_layer(2) | single_layer(4)) && plan.stop_layer() == 2);
  static_assert(plan.trained_roles(2) == mlp_roles && plan.trained_roles(3).empty());
  static_assert(plan.trained_roles() == (mlp_roles | roles(parameter_role::attention_output)));
  static_assert(plan.weight_gradient(2, parameter_role::mlp_up));
  static_assert(!plan.weight_gradient(4, parameter_role::mlp_up));
  static_assert(plan.weight_gradient(4, parameter_role::attention_output));
  static_assert(!plan.weight_gradient(2, parameter_role::attention_output));
  static_assert(plan.trains_final_norm() && !plan.trains_head());
  check_against_first_principles(plan);
  CHECK(plan.trained_roles(outside_layers).empty());
  CHECK_THROWS_WITH_AS(plan_backward(5, parameter_selection(6).add(single_layer(1))),
                       "plan_backward: the selection is of 6 layers, the model has 5",
                       config_error);
  CHECK_THROWS_WITH_AS(plan_backward(6, parameter_selection(6)),
                       "plan_backward: the selection is empty, expected at least one role of the "
                       "layers 0..5, or embeddings, final_norm or head",
                       selection_error);
}

TEST_CASE("plan_backward: whole layers and a selection of all their roles are one plan") {
  for (index_t layer = 0; layer < 5; ++layer) {
    CHECK(plan_backward(5, single_layer(layer), {.head = true}).selection() ==
          plan_backward(5, parameter_selection(5)
                               .add(single_layer(layer))
                               .add_outside(roles(parameter_role::head)))
              .selection());
  }
}

TEST_CASE("plan_backward: training only the head enters no layer") {
  constexpr backward_plan plan = plan_backward(12, no_layers(), {.head = true});
  static_assert(plan.stop_layer() == 12 && plan.frozen_prefix() == 12);
  for (index_t layer = 0; layer < 12; ++layer) {
    CHECK_FALSE(plan.saved_activations(layer));
    CHECK_FALSE(plan.activation_gradient(layer));
  }
}

TEST_CASE("plan_full: trains everything and hands the gradient down to the embeddings") {
  constexpr backward_plan plan = plan_full(4);
  static_assert(plan.layers() == all_layers(4) && plan.stop_layer() == 0);
  static_assert(plan.trains_embeddings() && plan.trains_final_norm() && plan.trains_head());
  for (index_t layer = 0; layer < 4; ++layer) CHECK(plan.activation_gradient(layer));
  check_against_first_principles(plan);
}

TEST_CASE("plan_backward: plans that cannot train anything are refused with the reason") {
  CHECK_THROWS_WITH_AS(plan_backward(0, no_layers()),
                       "plan_backward: layer_count is 0, expected 1..512", config_error);
  CHECK_THROWS_WITH_AS(plan_backward(513, single_layer(0)),
                       "plan_backward: layer_count is 513, expected 1..512", config_error);
  CHECK_THROWS_WITH_AS(plan_backward(4, layer_range(2, 4)),
                       "plan_backward: layer 4 is selected, the model has layers 0..3",
                       selection_error);
  CHECK_THROWS_WITH_AS(
      plan_backward(4, no_layers()),
      "plan_backward: the selection is empty and neither embeddings, final_norm nor head is "
      "trained; expected at least one layer of 0..3",
      selection_error);
  CHECK_THROWS_WITH_AS(
      plan_backward(4, single_layer(1), {.trained_roles = roles(parameter_role::head)}),
      "plan_backward: layers are selected but trained_roles holds no role of a layer",
      selection_error);
  CHECK_THROWS_WITH_AS(plan_full(0), "plan_backward: layer_count is 0, expected 1..512",
                       config_error);
}
