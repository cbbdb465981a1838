// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/optim/update_row.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace lamina;

TEST_CASE("same_bits: tells 0 from -0 and finds a NaN equal to itself") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  static_assert(same_bits(1.5, 1.5) && !same_bits(0.0, -0.0) && same_bits(nan, nan));
  static_assert(!same_bits(bf16(1.0f), bf16(1.0078125f)) && same_bits(f16(0.1f), f16(0.1f)));
  CHECK_FALSE(same_bits(nan, -nan));
}

TEST_CASE("update_row: a row in its own precision reads and writes the weight alone") {
  double weights[] = {1.0, 2.0};
  double const gradients[] = {3.0, 4.0};
  update_row<double, double> row;
  row.weights = weights;
  row.gradients = gradients;
  row.size = 2;
  static_assert(!decltype(row)::has_master);
  row.set_weight(1, row.weight(1) + row.gradient(1));
  CHECK(weights[0] == 1.0);
  CHECK(weights[1] == 6.0);
}

TEST_CASE_TEMPLATE("update_row: the master counts until the host writes the weight", T, bf16, f16) {
  T weights[] = {T(1.0f)};
  float master[] = {0.0f};
  update_row<T, float> row;
  row.weights = weights;
  row.master = master;
  row.size = 1;
  static_assert(decltype(row)::has_master);
  CHECK(row.weight(0) == 1.0f);  // a master never written does not round to the weight
  row.set_weight(0, 1.0001f);
  CHECK(static_cast<float>(weights[0]) == 1.0f);
  CHECK(row.weight(0) == 1.0001f);
  weights[0] = T(2.0f);
  CHECK(row.weight(0) == 2.0f);
  weights[0] = T(0.0f);
  master[0] = -0.0f;
  CHECK(same_bits(row.weight(0), 0.0f));
}
