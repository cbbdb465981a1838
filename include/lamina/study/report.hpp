// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The report of a sweep: what was run, every score, the profile, and where all of it came from.
#pragma once

#include "lamina/study/contribution_profile.hpp"
#include "lamina/study/sweep_plan.hpp"

LAMINA_NAMESPACE_BEGIN

/// One line of provenance.
struct report_setting {
  std::string key;
  std::string value;
};

/// Everything the writers print. Made by make_report; the writers (json_report, csv_report,
/// markdown_report, html_report, svg_profile, svg_selections) return the same text for the same
/// report, whatever the locale. Times are not part of it.
struct sweep_report {
  std::string title;
  /// Task, model, algorithm, budget, host: whatever a reader needs to repeat the sweep, in order.
  std::vector<report_setting> settings;
  /// Sentences to print below the numbers.
  std::vector<std::string> notes;
  sweep_results results;
  contribution_options options;
  contribution_profile profile;
  /// One for every variant of results.plan. Those of the first base and full variant are 0 and 1 by
  /// definition and have no error.
  std::vector<contribution> contributions;
};

/// Measures every variant of a finished sweep.
///
/// layer_count  decoder layers of the model; layers that no variant of kind layer trained have NaN
/// Throws config_error if the sweep has no base or no full variant, or a layer has two variants;
/// selection_error if a layer variant is outside the model; otherwise as contribution_scale.
inline sweep_report make_report(std::string title, std::vector<report_setting> settings,
                                sweep_results results, index_t layer_count,
                                contribution_options options = {}) {
  contribution_scale const scale = scale_of(results, options);
  std::vector<score_table> layers(static_cast<std::size_t>(layer_count > 0 ? layer_count : 0));
  std::vector<contribution> contributions;
  index_t const base = results.variant_of(variant_kind::base);
  index_t const full = results.variant_of(variant_kind::full);
  for (std::size_t v = 0; v < results.plan.variants.size(); ++v) {
    sweep_variant const& variant = results.plan.variants[v];
    index_t const index = static_cast<index_t>(v);
    score_table const scores = results.scores(index);
    contribution measured = scale.measure(scores);
    if (index == base || index == full) {
      measured.standard_error = not_a_number;
      measured.confidence = {};
      if (index == base) measured.score_error = scale.base_score_error();
    }
    contributions.push_back(measured);
    if (variant.kind != variant_kind::layer) continue;
    if (variant.layer < 0 || variant.layer >= layer_count) {
      throw_selection_error("make_report: variant '", variant.name, "' trains layer ",
                            variant.layer, ", the model has layers 0..", layer_count - 1);
    }
    score_table& slot = layers[static_cast<std::size_t>(variant.layer)];
    if (!slot.empty()) {
      throw_config_error("make_report: layer ", variant.layer,
                         " has two variants; give the second,", " '", variant.name,
                         "', another kind");
    }
    slot = scores;
  }
  contribution_profile profile = measure_profile(scale, layers);
  return {std::move(title),   std::move(settings),     {}, std::move(results), options,
          std::move(profile), std::move(contributions)};
}

LAMINA_NAMESPACE_END
