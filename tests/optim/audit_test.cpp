// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/optim/audit.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "lamina/layers/selector.hpp"
#include "lamina/optim/adamw.hpp"
#include "tests/optim/tensors.hpp"
#include "tests/support/backends.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

template <class T>
host_tensors<T> four_layers() {
  host_tensors<T> host;
  for (index_t layer = 0; layer < 4; ++layer) host.add("layer." + std::to_string(layer), layer, 10);
  host.add("head", outside_layers, 6);
  return host;
}

}  // namespace

TEST_CASE_TEMPLATE("audit: after a step the selected tensors moved and the frozen ones did not", T,
                   float, double) {
  auto host = four_layers<T>();
  auto const plan = plan_backward(4, layer_range(1, 2));
  auto const before = weight_snapshot(host.parameters());
  auto const all = host.parameters();
  adamw optimizer(eigen_backend<T>{}, std::vector{all[1], all[2]}, {.learning_rate = 0.01});
  optimizer.step();
  auto const report = audit(before, host.parameters(), plan);
  REQUIRE(report.tensors.size() == 5);
  CHECK(report.passed());
  CHECK(report.count(movement::moved) == 2);
  CHECK(report.count(movement::frozen) == 3);
  CHECK(report.tensors[1].verdict == movement::moved);
  CHECK(report.tensors[1].changed_count == 10);
  CHECK(report.tensors[1].max_change == doctest::Approx(0.01).epsilon(0.02));
  CHECK(report.tensors[4].name == "head");
  CHECK(report.tensors[4].layer == outside_layers);
  CHECK(report.tensors[4].l2_change == 0);
}

TEST_CASE("audit: changes are measured element by element") {
  auto host = four_layers<double>();
  auto const before = weight_snapshot(host.parameters());
  host.tensors[2].weight[3] += 3.0;
  host.tensors[2].weight[9] -= 4.0;
  auto const tensor =
      audit(before, host.parameters(), plan_backward(4, single_layer(2))).tensors[2];
  CHECK(tensor.element_count == 10);
  CHECK(tensor.changed_count == 2);
  CHECK(tensor.max_change == doctest::Approx(4.0));
  CHECK(tensor.l2_change == doctest::Approx(5.0));
}

TEST_CASE("audit: a frozen tensor that moved and a selected one that did not fail the audit") {
  auto host = four_layers<float>();
  auto const before = weight_snapshot(host.parameters());
  host.tensors[0].weight[0] += 1.0f;
  auto const report = audit(before, host.parameters(), plan_backward(4, single_layer(3)));
  CHECK_FALSE(report.passed());
  CHECK(report.tensors[0].verdict == movement::frozen_moved);
  CHECK(report.tensors[3].verdict == movement::selected_unmoved);
  CHECK(report.count(movement::frozen) == 3);
}

TEST_CASE("audit: the comparison is by bits, and weights that are not finite fail") {
  auto host = four_layers<float>();
  host.tensors[0].weight[0] = 0.0f;
  host.tensors[1].weight[0] = std::numeric_limits<float>::quiet_NaN();
  auto const before = weight_snapshot(host.parameters());
  auto const plan = plan_backward(4, layer_range(2, 3));
  host.tensors[2].weight[0] += 1.0f;
  host.tensors[3].weight[0] += 1.0f;
  auto report = audit(before, host.parameters(), plan);
  CHECK(report.tensors[1].verdict == movement::frozen);  // the same NaN
  CHECK(report.tensors[1].nonfinite_count == 1);
  CHECK_FALSE(report.passed());

  host.tensors[0].weight[0] = -0.0f;
  host.tensors[2].weight[0] = std::numeric_limits<float>::infinity();
  report = audit(before, host.parameters(), plan);
  CHECK(report.tensors[0].verdict == movement::frozen_moved);
  CHECK(report.tensors[0].changed_count == 1);
  CHECK(report.tensors[0].max_change == 0);
  CHECK(report.tensors[2].nonfinite_count == 1);
  CHECK(report.tensors[2].max_change == 0);
}

TEST_CASE("audit: of tensors with one role, only those a selection names have to move") {
  auto host = four_layers<float>();
  host.add("layer.1.bias", 1, 4);
  std::vector<model_tensor> tensors;
  for (auto const& parameter : host.parameters()) tensors.push_back(as_tensor(parameter));
  tensor_selection const selection(parameter_selection(4), {{name_pattern("bias$")}}, tensors);
  auto const before = weight_snapshot(host.parameters());
  adamw optimizer(eigen_backend<float>{}, std::vector{host.parameters()[5]},
                  {.learning_rate = 0.01});
  optimizer.step();
  CHECK(audit(before, host.parameters(), selection).passed());
  auto const by_plan = audit(before, host.parameters(), plan_backward(4, selection.covering()));
  CHECK(by_plan.count(movement::selected_unmoved) == 1);  // layer.1, which the plan covers too
}

TEST_CASE("audit: lists that are not those of the snapshot are refused") {
  auto host = four_layers<float>();
  auto const before = weight_snapshot(host.parameters());
  auto const plan = plan_backward(4, single_layer(0));
  auto fewer = host.parameters();
  fewer.pop_back();
  CHECK_THROWS_WITH_AS(audit(before, fewer, plan),
                       "audit: 4 parameters are given, the snapshot has 5", config_error);
  auto renamed = host.parameters();
  renamed[2].name = "other";
  CHECK_THROWS_WITH_AS(audit(before, renamed, plan), "audit: the snapshot has no parameter other",
                       config_error);
  auto twice = host.parameters();
  twice[2].name = twice[1].name;
  CHECK_THROWS_WITH_AS(audit(before, twice, plan),
                       "audit: layer.1 is given twice, expected unique names", config_error);
  CHECK_THROWS_WITH_AS(
      weight_snapshot{twice},
      "weight_snapshot: the name \"layer.1\" is empty or used twice, expected unique names",
      config_error);
  auto cut = host.parameters();
  cut[4].weight.size = 5;
  CHECK_THROWS_WITH_AS(audit(before, cut, plan), "audit: head has 5 elements, its snapshot has 6",
                       shape_error);
}
