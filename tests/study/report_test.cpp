// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/report.hpp"

#include <doctest/doctest.h>

#include "tests/support/synthetic_sweep.hpp"

using lamina::is_nan;
using lamina::make_report;
using lamina::variant_kind;
using lamina::testing::synthetic_report;
using lamina::testing::synthetic_results;

TEST_CASE("make_report measures every variant; layers agree with the profile") {
  auto const report = synthetic_report(4);
  auto const& variants = report.results.plan.variants;
  REQUIRE(report.contributions.size() == variants.size());
  REQUIRE(report.profile.layer_count() == 4);
  for (std::size_t v = 0; v < variants.size(); ++v) {
    if (variants[v].kind != variant_kind::layer) continue;
    auto const& layer = report.profile.layers[static_cast<std::size_t>(variants[v].layer)];
    CHECK(report.contributions[v].value == layer.value);
    CHECK(report.contributions[v].confidence.low == layer.confidence.low);
  }
  CHECK(report.profile.best.layer == 3);
  // The made-up profile is 0.3 + 0.5 k / 4.
  CHECK(report.profile.contribution_of(2) == doctest::Approx(0.55).epsilon(0.05));
  CHECK(report.contributions[6].value == doctest::Approx(0.9).epsilon(0.05));
}

TEST_CASE("make_report: base and full are 0 and 1 by definition, without an error") {
  auto const report = synthetic_report();
  CHECK(report.contributions[0].value == 0);
  CHECK(report.contributions[1].value == doctest::Approx(1));
  for (std::size_t v : {std::size_t{0}, std::size_t{1}}) {
    CHECK(is_nan(report.contributions[v].standard_error));
    CHECK(is_nan(report.contributions[v].confidence.low));
  }
  CHECK(report.contributions[1].score_error > 0);
}

TEST_CASE("make_report: a partial sweep leaves the other layers unmeasured") {
  auto const report = make_report("t", {}, synthetic_results(3), 8);
  auto const values = report.profile.contributions_by_layer();
  REQUIRE(values.size() == 8);
  CHECK_FALSE(is_nan(values[2]));
  CHECK(is_nan(values[3]));
}

TEST_CASE("make_report: a layer outside the model and a layer given twice are errors") {
  CHECK_THROWS_WITH_AS(make_report("t", {}, synthetic_results(3), 2),
                       "make_report: variant 'layer:2' trains layer 2, the model has layers 0..1",
                       lamina::selection_error);
  auto results = synthetic_results(3);
  results.plan.variants[3].layer = 0;
  CHECK_THROWS_WITH_AS(
      make_report("t", {}, results, 3),
      "make_report: layer 0 has two variants; give the second, 'layer:1', another kind",
      lamina::config_error);
}
