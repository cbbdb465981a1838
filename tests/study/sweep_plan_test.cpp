// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/sweep_plan.hpp"

#include <doctest/doctest.h>

#include "tests/support/synthetic_sweep.hpp"

using lamina::index_t;
using lamina::sweep_plan;
using lamina::sweep_results;
using lamina::sweep_run;
using lamina::variant_kind;
using lamina::testing::synthetic_plan;
using lamina::testing::synthetic_results;

namespace {

void run(sweep_plan const& plan) {
  lamina::run_sweep(plan, {}, lamina::serial_for{},
                    [](sweep_run const&) { return lamina::run_scores{}; });
}

}  // namespace

TEST_CASE("a plan becomes variants x bases x seeds, in that order; the base variant has no seed") {
  auto const runs = lamina::detail::runs_of(synthetic_plan(2, 2));
  // base 1, full 5, two layers, a selection and a control 3 each, on two bases.
  REQUIRE(runs.size() == 2 * (1 + 5 + 4 * 3));
  CHECK(runs[0].variant == 0);
  CHECK(runs[0].base == 0);
  CHECK(runs[0].seed == 0);
  CHECK(runs[1].base == 1);
  CHECK(runs[2].variant == 1);
  CHECK(runs[2].seed == 1);
  CHECK(runs[6].seed == 5);
  CHECK(runs[7].base == 1);
  CHECK(runs.back().variant == 5);
  CHECK(runs.back().base == 1);
  CHECK(runs.back().seed == 3);
}

TEST_CASE("a base variant with seeds of its own is scored for each") {
  sweep_plan plan = synthetic_plan(1);
  plan.variants[0].seeds = {7, 8};
  auto const runs = lamina::detail::runs_of(plan);
  CHECK(runs[0].seed == 7);
  CHECK(runs[1].seed == 8);
  CHECK(runs[2].variant == 1);
}

TEST_CASE("results hand out scores and extras as [bases][seeds]") {
  sweep_results const results = synthetic_results(3, 2);
  index_t const full = results.variant_named("full");
  CHECK(full == results.variant_of(variant_kind::full));
  auto const scores = results.scores(full);
  REQUIRE(scores.size() == 2);
  REQUIRE(scores[1].size() == 5);
  sweep_run const fourth{1, 4, results.plan.variants[1]};
  CHECK(scores[1][3] == lamina::testing::synthetic_scores(fourth, 3).score);
  CHECK(results.extras(full, "greedy")[0].size() == 5);
  CHECK(lamina::is_nan(results.extras(full, "absent")[0][0]));
  CHECK(results.variant_of(variant_kind::control) == 6);
  CHECK_THROWS_WITH_AS(results.variant_named("middle:3"),
                       "sweep_results: no variant is named 'middle:3'", lamina::config_error);
}

TEST_CASE("the scale of a sweep comes from its base and its full variant") {
  sweep_results results = synthetic_results(2);
  CHECK(lamina::scale_of(results).gain() == doctest::Approx(0.4).epsilon(0.02));
  results.plan.variants[1].kind = variant_kind::selection;
  CHECK_THROWS_WITH_AS(lamina::scale_of(results),
                       "scale_of: the sweep has no variant of kind full; both are needed for a "
                       "contribution",
                       lamina::config_error);
}

TEST_CASE("a run and a kind have names a reader understands") {
  CHECK(sweep_run{2, 17, synthetic_plan(4).variants[5]}.name() == "base 2, layer:3, seed 17");
  CHECK(std::string(lamina::name_of(variant_kind::control)) == "control");
}

TEST_CASE("a plan that makes no sense is refused before anything runs") {
  auto const refused = [](auto change, char const* text) {
    sweep_plan plan = synthetic_plan(2);
    change(plan);
    CHECK_THROWS_WITH_AS(run(plan), text, lamina::config_error);
  };
  refused([](sweep_plan& plan) { plan.variants.clear(); }, "run_sweep: the plan has no variants");
  refused([](sweep_plan& plan) { plan.bases = 0; }, "run_sweep: bases is 0, expected at least 1");
  refused(
      [](sweep_plan& plan) {
        plan.seeds = {1, 2, 1};
      },
      "run_sweep: the plan names seed 1 twice");
  refused(
      [](sweep_plan& plan) {
        plan.variants[1].seeds = {4, 4};
      },
      "run_sweep: variant 'full' names seed 4 twice");
  refused([](sweep_plan& plan) { plan.seeds.clear(); },
          "run_sweep: variant 'layer:0' has no seeds, nor has the plan");
  refused([](sweep_plan& plan) { plan.variants[3].name = "full"; },
          "run_sweep: two variants are named 'full'");
  refused([](sweep_plan& plan) { plan.variants[2].name = ""; }, "run_sweep: variant 2 has no name");
}
