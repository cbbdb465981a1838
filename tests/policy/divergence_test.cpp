// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/divergence.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/numbers.hpp"
#include "tests/support/worked_case.hpp"

using namespace lamina;
using testing::lane;

namespace {

// -ffast-math takes e^x - 1 apart, so that its last bits near 0 are those of 1.
#if defined(__FAST_MATH__)
constexpr double reordered = 1e-7;
#else
constexpr double reordered = 0;
#endif

// Differences of log-probs of the worked cases lose a few bits in float.
template <class V>
doctest::Approx about(double x) {
  return doctest::Approx(x).epsilon(sizeof(scalar_of_t<V>) == 4 ? 1e-4 : 1e-9);
}

struct plain_kl {
  double value, slope;
};
template <class V, class Estimator>
plain_kl kl_of(Estimator const& estimator, double k) {
  auto const kl = estimator.at(V(k));
  return {lane(kl.value), lane(kl.slope)};
}

template <class V>
importance_ratio<V> ratio(double log_ratio) {
  return importance_ratio<V>(V(log_ratio));
}

}  // namespace

TEST_CASE_TEMPLATE("worked case C12: every estimator with its derivative", V, LAMINA_TEST_NUMBERS) {
  auto const worked = testing::worked_case("C12");
  for (auto const& row : worked["expected"]["kl_table"]) {
    auto const number = [&row](char const* name) { return row[name].template get<double>(); };
    double const k = number("logp") - number("logref"), d = number("logp") - number("logold");
    auto const check = [&](auto const& estimator, double value, double slope) {
      CHECK(kl_of<V>(estimator, k).value == about<V>(value));
      CHECK(kl_of<V>(estimator, k).slope == about<V>(slope));
    };
    check(kl_k1{}, number("k1"), number("dk1"));
    check(kl_k2{}, number("k2"), number("dk2"));
    check(kl_k3{}, number("k3"), number("dk3"));
    check(kl_abs{}, number("abs"), number("dabs"));
    check(kl_k3_clamped{}, number("verl_k3"), number("dverl_k3"));
    check(straight_through<>{}, number("k3_plus_value"), number("k3_plus_grad"));
    check(straight_through<kl_k1>{}, number("k1"), number("dk2"));
    auto const weighted =
        ratio_weighted_kl_penalty<>{.coefficient = 1}.at(V(k), ratio<V>(d), false);
    CHECK(lane(weighted.value) == about<V>(number("k3_ratio_weighted")));
    CHECK(lane(weighted.slope) == about<V>(number("dk3_ratio_weighted")));
    CHECK(lane(weighted.ratio_slope) == 0);
  }
}

TEST_CASE_TEMPLATE("worked case C12: ratio-weighted k3 of a whole sequence, its two derivatives", V,
                   LAMINA_TEST_NUMBERS) {
  auto const c = testing::worked_case("C12");
  auto const batch = testing::worked_batch<double>(c);
  auto const& expected = c["expected"]["seq_ratio_weighted_k3_row2"];
  double const log_ratio = std::log(expected["s"].get<double>());
  kl_loss_term<V> terms[4];
  double value = 0, through_ratio = 0;
  for (std::size_t t = 0; t < 4; ++t) {
    double const k = batch.log_probs[5 + t] - batch.reference_log_probs[5 + t];
    terms[t] = ratio_weighted_kl_penalty<>{.coefficient = 1}.at(V(k), ratio<V>(log_ratio), true);
    value += lane(terms[t].value) / 4;
    through_ratio += lane(terms[t].ratio_slope) / 4;
  }
  CHECK(value == about<V>(expected["value"]));
  for (std::size_t t = 0; t < 4; ++t) {
    double const slope = lane(terms[t].slope) / 4 + through_ratio / 4;
    CHECK(std::abs(slope - expected["dlogp"][t].get<double>()) <
          (sizeof(scalar_of_t<V>) == 4 ? 1e-6 : 1e-10));
  }
}

TEST_CASE("slopes are derivatives of values") {
  double const h = 1e-6;
  for (double k : {-15.0, -5.0, -2.7, -0.3, 0.2, 4.0, 10.5, 15.0}) {
    auto const check = [&](auto const& estimator) {
      double const slope = (estimator.at(k + h).value - estimator.at(k - h).value) / (2 * h);
      CHECK(estimator.at(k).slope == doctest::Approx(slope).epsilon(1e-6));
    };
    check(kl_k1{});
    check(kl_k2{});
    check(kl_abs{});
    if (k > -10) check(kl_k3{});
    check(kl_k3_clamped{});
  }
}

TEST_CASE_TEMPLATE("at equal log-probs every estimator is 0, and pulls nowhere but k1", V,
                   LAMINA_TEST_NUMBERS) {
  auto const check = [](auto const& estimator) {
    CHECK(kl_of<V>(estimator, 0).value == 0);
    CHECK(kl_of<V>(estimator, 0).slope == 0);
  };
  check(kl_abs{});
  check(kl_k2{});
  check(kl_k3{});
  check(kl_k3_clamped{});
  check(straight_through<>{});
  CHECK(kl_of<V>(kl_k1{}, 0).slope == 1);
}

TEST_CASE_TEMPLATE("k3 is never negative and keeps its pull where its exponential would overflow",
                   V, LAMINA_TEST_NUMBERS) {
  for (double k : {-800.0, -20.0, -1e-9, 0.0, 1e-9, 3.0, 1e4}) {
    CHECK(kl_of<V>(kl_k3{}, k).value >= -reordered);
    CHECK(is_finite(kl_of<V>(kl_k3{}, k).value));
    CHECK(is_finite(kl_of<V>(kl_k3{}, k).slope));
  }
  CHECK(kl_of<V>(kl_k3{}, -800).slope == about<V>(-std::expm1(20.0)));
  CHECK(kl_of<V>(kl_k3{}, -1e4).slope == about<V>(-std::expm1(20.0)));
}

TEST_CASE_TEMPLATE("clamped k3 lets go of a token whose reference is 2.61 nats above", V,
                   LAMINA_TEST_NUMBERS) {
  CHECK(kl_of<V>(kl_k3_clamped{}, -2.60).slope == about<V>(-std::expm1(2.60)));
  CHECK(kl_of<V>(kl_k3_clamped{}, -2.62).slope == 0);
  CHECK(kl_of<V>(kl_k3_clamped{}, -2.62).value == 10);
  CHECK(kl_of<V>(kl_k3_clamped{}, 11.5).slope == 0);
  CHECK(kl_of<V>(kl_k3_clamped{}, 11.5).value == 10);
  CHECK(kl_of<V>(kl_k3_clamped{}, 10.5).slope == about<V>(-std::expm1(-10.5)));
}

TEST_CASE_TEMPLATE("kl_penalty: the estimate and its slope, whatever the ratio", V,
                   LAMINA_TEST_NUMBERS) {
  kl_penalty<kl_k2> const penalty{.coefficient = 0.5};
  for (bool coupled : {false, true}) {
    auto const term = penalty.at(V(0.25), ratio<V>(3), coupled);
    CHECK(lane(term.value) == 0.03125);
    CHECK(lane(term.slope) == 0.25);
    CHECK(lane(term.ratio_slope) == 0);
  }
  CHECK(penalty.weight() == 0.5);
}

TEST_CASE_TEMPLATE("ratio-weighted terms: the product rule, in one or two derivatives", V,
                   LAMINA_TEST_NUMBERS) {
  for (double k : {-3.0, -0.5, 0.25, 2.0}) {
    for (double d : {-1.0, 0.5}) {
      double const r = std::exp(d);
      ratio_weighted_kl_penalty<kl_k2> const by_k2{.coefficient = 1};
      auto const own = by_k2.at(V(k), ratio<V>(d), false);
      CHECK(lane(own.value) == about<V>(r * k * k / 2));
      CHECK(lane(own.slope) == about<V>(r * (k + k * k / 2)));
      auto const split = by_k2.at(V(k), ratio<V>(d), true);
      CHECK(lane(split.slope) == about<V>(r * k));
      CHECK(lane(split.ratio_slope) == about<V>(r * k * k / 2));
      // r k3: the derivatives add up to r k.
      auto const k3 = ratio_weighted_kl_penalty<>{.coefficient = 1}.at(V(k), ratio<V>(d), false);
      CHECK(lane(k3.slope) == about<V>(r * k));
    }
  }
}

TEST_CASE_TEMPLATE("ratio-weighted terms: a ratio beyond 20 nats is a constant", V,
                   LAMINA_TEST_NUMBERS) {
  ratio_weighted_kl_penalty<> const penalty{.coefficient = 1};
  double const r = std::exp(20.0);
  auto const beyond = penalty.at(V(0.5), ratio<V>(50), false);
  CHECK(lane(beyond.value) == about<V>(r * (std::exp(-0.5) - 0.5)));
  CHECK(lane(beyond.slope) == about<V>(-r * std::expm1(-0.5)));
  CHECK(lane(penalty.at(V(0.5), ratio<V>(50), true).ratio_slope) == 0);
  for (double k : {-1e4, -30.0, 30.0, 1e4}) {
    for (double d : {-1e4, -30.0, 0.0, 30.0, 1e4}) {
      auto const term = penalty.at(V(k), ratio<V>(d), false);
      CHECK(is_finite(lane(term.value)));
      CHECK(is_finite(lane(term.slope)));
    }
  }
  // Below k = -20 the slope of the estimate and its value no longer add up to k.
  auto const far = penalty.at(V(-25), ratio<V>(0), false);
  CHECK(lane(far.value) == about<V>(std::expm1(20.0) - 25));
  CHECK(lane(far.slope) == doctest::Approx(-25).epsilon(1e-6).scale(std::exp(20.0)));
}

TEST_CASE("a penalty of coefficient 0 reads no reference; bad coefficients are refused") {
  CHECK_FALSE(kl_penalty<>{}.active());
  CHECK(kl_penalty<>{.coefficient = 0.1}.active());
  CHECK_FALSE(ratio_weighted_kl_penalty<>{}.active());
  CHECK(ratio_weighted_kl_penalty<>{.coefficient = 0.1}.active());
  CHECK_FALSE(no_kl::active());
  CHECK(no_kl::weight() == 0);
  CHECK(no_kl::at(1.0, ratio<double>(1), true).value == 0);
  CHECK_THROWS_WITH_AS(kl_penalty<>{.coefficient = -1}.check(),
                       "kl_penalty: coefficient is -1, expected a finite value >= 0", config_error);
  CHECK_THROWS_AS(kl_penalty<kl_k2>{.coefficient = INFINITY}.check(), config_error);
  CHECK_THROWS_WITH_AS(
      ratio_weighted_kl_penalty<>{.coefficient = NAN}.check(),
      "ratio_weighted_kl_penalty: coefficient is nan, expected a finite value >= 0", config_error);
  CHECK_NOTHROW(no_kl::check());
}
