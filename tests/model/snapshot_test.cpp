// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/model/snapshot.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "tests/support/minimal_model.hpp"

using namespace lamina;
using testing::minimal_model;

namespace {

// Saves and restores itself; counts how often it is asked.
struct self_saving_model : minimal_model<float> {
  using minimal_model<float>::minimal_model;
  int saves = 0, restores = 0;
  float save_layer(index_t layer) {
    ++saves;
    auto const range = layer == outside_layers ? outer_parameters() : parameters(layer);
    return range[0].weight[0];
  }
  void restore_layer(index_t layer, float first) {
    ++restores;
    auto const range = layer == outside_layers ? outer_parameters() : parameters(layer);
    range[0].weight[0] = first;
  }
};

template <class Model>
void spoil(Model& model) {
  for (auto const& p : all_parameters(model)) p.weight[0] = 1234;
}

}  // namespace

TEST_CASE_TEMPLATE("a snapshot brings every weight back, bit for bit, again and again", T, float,
                   double) {
  minimal_model<T> model(3, 5);
  auto const weights = model.weights();
  auto const embedding = model.embedding();
  model_snapshot const snapshot(model);
  for (int round = 0; round < 2; ++round) {
    spoil(model);
    CHECK(model.weights() != weights);
    snapshot.restore(model);
    CHECK(model.weights() == weights);
    CHECK(model.embedding() == embedding);
  }
}

TEST_CASE("a restorable model saves itself, outer parameters included") {
  static_assert(restorable_model<self_saving_model>);
  self_saving_model model(3, 5);
  auto const weights = model.weights();
  auto const embedding = model.embedding();
  model_snapshot const snapshot(model);
  CHECK(model.saves == 4);
  spoil(model);
  snapshot.restore(model);
  CHECK(model.restores == 4);
  CHECK(model.weights() == weights);
  CHECK(model.embedding() == embedding);
}

TEST_CASE("a snapshot of another model is refused before anything changes") {
  minimal_model<float> small(2, 5), large(3, 5), wide(2, 6);
  model_snapshot const snapshot(small);
  auto const before = large.weights();
  CHECK_THROWS_AS(snapshot.restore(large), config_error);
  CHECK(large.weights() == before);
  auto const wide_before = wide.weights();
  CHECK_THROWS_AS(snapshot.restore(wide), shape_error);
  CHECK(wide.weights() == wide_before);
}
