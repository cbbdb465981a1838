// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A sweep without a model: scores are a made-up profile plus noise that is a function of the run.
#pragma once

#include "lamina/core/random.hpp"
#include "lamina/study/report.hpp"
#include "lamina/study/sweep.hpp"

namespace lamina::testing {

inline sweep_plan synthetic_plan(index_t layers, index_t bases = 1) {
  sweep_plan plan{.variants = {{.name = "base", .kind = variant_kind::base, .trained = "nothing"},
                               {.name = "full",
                                .kind = variant_kind::full,
                                .trained = "everything",
                                .learning_rate = 3e-4,
                                .steps = 60,
                                .seeds = {1, 2, 3, 4, 5}}},
                  .bases = bases,
                  .seeds = {1, 2, 3},
                  .settings = "synthetic; steps=60"};
  for (index_t layer = 0; layer < layers; ++layer) {
    plan.variants.push_back({.name = "layer:" + std::to_string(layer),
                             .kind = variant_kind::layer,
                             .layer = layer,
                             .trained = "layer " + std::to_string(layer),
                             .learning_rate = 1e-3,
                             .steps = 60});
  }
  plan.variants.push_back({.name = "last:2",
                           .kind = variant_kind::selection,
                           .trained = "the last two layers",
                           .learning_rate = 3e-4,
                           .steps = 60});
  plan.variants.push_back({.name = "shuffled",
                           .kind = variant_kind::control,
                           .trained = "the last layer",
                           .learning_rate = 3e-4,
                           .steps = 60,
                           .notes = "rewards shuffled in each group"});
  return plan;
}

/// Base 0.5, full 0.9, layer k of n: C = 0.3 + 0.5 k / n; noise of 0.005 from base, name and seed.
inline run_scores synthetic_scores(sweep_run const& run, index_t layers) {
  double contribution = 0;
  switch (run.variant.kind) {
    case variant_kind::base: return {0.5, {{"greedy", 0.35}}};
    case variant_kind::full: contribution = 1; break;
    case variant_kind::layer:
      contribution = 0.3 + 0.5 * static_cast<double>(run.variant.layer) / double(layers);
      break;
    case variant_kind::selection: contribution = 0.9; break;
    case variant_kind::control: contribution = -0.02; break;
  }
  counter_generator generator(run.seed + 1000 * static_cast<std::uint64_t>(run.base),
                              fnv1a_64(run.variant.name));
  double const noise = 0.005 * normal_quantile(generator.uniform());
  return {0.5 + 0.4 * contribution + noise, {{"greedy", 0.6 + noise}}};
}

/// The finished synthetic sweep.
inline sweep_results synthetic_results(index_t layers, index_t bases = 1) {
  return run_sweep(synthetic_plan(layers, bases), {}, serial_for{},
                   [layers](sweep_run const& run) { return synthetic_scores(run, layers); });
}

/// Its report.
inline sweep_report synthetic_report(index_t layers = 6, index_t bases = 1) {
  sweep_report report = make_report("A synthetic profile", {{"task", "made up"}, {"model", "none"}},
                                    synthetic_results(layers, bases), layers);
  report.notes = {"A note of the program."};
  return report;
}

/// A report whose every user text tries to break out of where it is printed.
inline char const* const hostile_text =
    "</title><script>alert(\"1\")</script> & 'quoted' | pipe, \\back *bold* [a](b)\n# x\t\x01 \xff";
inline sweep_report hostile_report() {
  sweep_results results = synthetic_results(3);
  for (sweep_variant& variant : results.plan.variants) {
    variant.name += hostile_text;
    variant.trained += hostile_text;
    variant.notes += hostile_text;
  }
  for (run_result& run : results.runs) run.extras[0].name = hostile_text;
  results.plan.settings = hostile_text;
  sweep_report report =
      make_report(hostile_text, {{hostile_text, hostile_text}}, std::move(results), 3);
  report.notes = {hostile_text};
  return report;
}

/// A report in which full training gained nothing.
inline sweep_report refused_report() {
  sweep_results results = synthetic_results(4);
  for (run_result& run : results.runs) {
    if (run.variant == 1) run.score -= 0.395;
  }
  return make_report("Refused", {}, std::move(results), 4);
}

}  // namespace lamina::testing
