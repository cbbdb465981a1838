// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/parameter.hpp"

#include <doctest/doctest.h>

#include <vector>

TEST_CASE("parameter_view: outside the layers, decaying and without a gradient unless told") {
  std::vector<float> weight{1, 2};
  lamina::parameter_view<float> const p{.name = "w", .weight = weight};
  CHECK(p.layer == lamina::outside_layers);
  CHECK(p.role == lamina::parameter_role::other);
  CHECK(p.decays);
  CHECK(p.gradient.empty());
  p.weight[0] = 9;
  CHECK(weight[0] == 9);
}
