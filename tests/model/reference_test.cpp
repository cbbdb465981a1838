// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/model/reference.hpp"

#include <doctest/doctest.h>

#include <stdexcept>
#include <vector>

#include "lamina/layers/selector.hpp"
#include "lamina/model/prefix_cache.hpp"
#include "tests/support/minimal_model.hpp"

using namespace lamina;
using testing::minimal_model;
using testing::minimal_prefix_model;

namespace {

std::vector<std::int32_t> const tokens{1, 4, 0, 3};

template <class T>
std::vector<T> copy_of(matrix_view<T> m) {
  return {m.data, m.data + m.rows * m.cols};
}

// What training does to a layer, roughly.
template <class Model>
void move_layer(Model& model, index_t layer) {
  auto const parameter = model.parameters(layer)[0];
  for (auto& w : parameter.weight) w += 0.25f;
}

}  // namespace

TEST_CASE("the model is the reference inside, and the policy again outside, bit for bit") {
  minimal_prefix_model<float> model(5, 6), untouched(5, 6);
  auto const plan = plan_backward(5, layer_set{}.insert(2).insert(4));
  frozen_copy reference(model, plan);
  CHECK(reference.element_count() == 2 * 6);
  prefix_cache cache(model, plan);
  auto const prefix = cache.fill(model, tokens);
  move_layer(model, 2);
  move_layer(model, 4);
  auto const policy = model.weights();
  auto const expected = copy_of(untouched.forward(tokens, plan));
  for (int round = 0; round < 2; ++round) {
    // The prefix serves both.
    auto const logits =
        reference.with(model, [&] { return copy_of(prefix.forward(model, tokens, plan)); });
    CHECK(logits == expected);
    CHECK(model.weights() == policy);
    CHECK(copy_of(prefix.forward(model, tokens, plan)) != expected);
  }
  int calls = 0;
  int& returned = reference.with(model, [&]() -> int& { return ++calls, calls; });
  CHECK(&returned == &calls);
}

TEST_CASE("an exception inside leaves the policy's weights") {
  minimal_model<float> model(3, 6);
  frozen_copy reference(model, plan_backward(3, single_layer(1)));
  move_layer(model, 1);
  auto const policy = model.weights();
  CHECK_THROWS_AS(reference.with(model, [] { throw std::runtime_error("inside"); }),
                  std::runtime_error);
  CHECK(model.weights() == policy);
  reference.with(model, [&] { CHECK(model.weights() != policy); });  // and may be used again
}

TEST_CASE("a selection that moves extends the copy before it trains") {
  minimal_model<float> model(5, 6);
  auto const original = model.weights();
  frozen_copy reference(model, plan_backward(5, single_layer(1)));
  move_layer(model, 1);
  reference.extend(model, plan_backward(5, single_layer(3)));
  CHECK(reference.element_count() == 2 * 6);
  move_layer(model, 3);
  reference.extend(model, plan_backward(5, single_layer(1)));  // known already: stays the original
  CHECK(reference.element_count() == 2 * 6);
  reference.check(model);
  reference.with(model, [&] { CHECK(model.weights() == original); });
}

TEST_CASE("a tensor that was trained before it was copied is found") {
  minimal_model<float> model(5, 6);
  frozen_copy reference(model, plan_backward(5, single_layer(1)));
  move_layer(model, 3);
  CHECK_THROWS_WITH_AS(reference.extend(model, plan_backward(5, layer_set{}.insert(2).insert(3))),
                       "frozen_copy::extend: layers.3.weight has changed since the copy was made, "
                       "and was not copied",
                       config_error);
  CHECK(reference.element_count() == 6);
  CHECK_THROWS_WITH_AS(
      reference.check(model),
      "frozen_copy::check: layers.3.weight has changed since the copy was made, and was not copied",
      config_error);
}

TEST_CASE("an old policy takes over the weights of the moment") {
  minimal_model<float> model(3, 6);
  frozen_copy old_policy(model, plan_backward(3, single_layer(1)));
  move_layer(model, 1);
  auto const first = model.weights();
  old_policy.refresh(model);
  move_layer(model, 1);
  old_policy.with(model, [&] { CHECK(model.weights() == first); });
  move_layer(model, 0);
  old_policy.refresh(model);  // whatever changed, it is this model now
  old_policy.check(model);
}

TEST_CASE("another model, and use inside use, are refused") {
  minimal_model<float> model(3, 6), deeper(4, 6), wider(3, 7);
  auto const plan = plan_backward(3, single_layer(1));
  frozen_copy reference(model, plan);
  for (auto* other : {&deeper, &wider}) {
    CHECK_THROWS_WITH_AS(reference.with(*other, [] {}),
                         "frozen_copy::with: the model does not list the tensors that were copied",
                         config_error);
  }
  reference.with(model, [&] {
    CHECK_THROWS_WITH_AS(reference.with(model, [] {}),
                         "frozen_copy::with: the model has the copied weights already",
                         config_error);
    CHECK_THROWS_AS(reference.refresh(model), config_error);
    CHECK_THROWS_AS(reference.extend(model, plan), config_error);
  });
  CHECK_THROWS_AS(frozen_copy(model, plan_backward(4, single_layer(1))), config_error);
}
