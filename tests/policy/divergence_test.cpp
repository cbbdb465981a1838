// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/divergence.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/reference_file.hpp"

using namespace lamina;

TEST_CASE("worked case C12: k1, k2 and k3 with their derivatives") {
  auto const file = testing::read_reference("worked_cases.json");
  for (auto const& row : file["C12"]["expected"]["kl_table"]) {
    double const k = row["logp"].get<double>() - row["logref"].get<double>();
    CHECK(kl_k1{}.at(k).value == doctest::Approx(row["k1"].get<double>()).epsilon(1e-9));
    CHECK(kl_k1{}.at(k).slope == row["dk1"].get<double>());
    CHECK(kl_k2{}.at(k).value == doctest::Approx(row["k2"].get<double>()).epsilon(1e-9));
    CHECK(kl_k2{}.at(k).slope == doctest::Approx(row["dk2"].get<double>()).epsilon(1e-9));
    CHECK(kl_k3{}.at(k).value == doctest::Approx(row["k3"].get<double>()).epsilon(1e-9));
    CHECK(kl_k3{}.at(k).slope == doctest::Approx(row["dk3"].get<double>()).epsilon(1e-9));
  }
}

TEST_CASE("slopes are derivatives of values") {
  double const h = 1e-6;
  for (double k : {-5.0, -0.3, 0.0, 0.2, 4.0}) {
    auto const check = [&](auto estimator) {
      double const slope = (estimator.at(k + h).value - estimator.at(k - h).value) / (2 * h);
      CHECK(estimator.at(k).slope == doctest::Approx(slope).epsilon(1e-6));
    };
    check(kl_k1{});
    check(kl_k2{});
    check(kl_k3{});
  }
}

TEST_CASE("k3 is never negative and keeps its pull where its exponential would overflow") {
  for (double k : {-1e4, -800.0, -20.0, -1e-9, 0.0, 1e-9, 3.0, 1e4}) {
    CHECK(kl_k3{}.at(k).value >= 0);
    CHECK(std::isfinite(kl_k3{}.at(k).value));
    CHECK(std::isfinite(kl_k3{}.at(k).slope));
  }
  CHECK(kl_k3{}.at(-800.0).slope == doctest::Approx(-std::expm1(20.0)));
}

TEST_CASE("a penalty of coefficient 0 reads no reference; bad coefficients are refused") {
  CHECK_FALSE(kl_penalty<>{}.active());
  CHECK(kl_penalty<>{.coefficient = 0.1}.active());
  CHECK_THROWS_WITH_AS(kl_penalty<>{.coefficient = -1}.check(),
                       "kl_penalty: coefficient is -1, expected a finite value >= 0", config_error);
  CHECK_THROWS_AS(kl_penalty<kl_k2>{.coefficient = INFINITY}.check(), config_error);
}
