// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// From the results of a sweep to its report: what the notes say, which files are written.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "examples/layer_sweep/print_report.hpp"
#include "examples/layer_sweep/sweep.hpp"
#include "lamina/study/report_html.hpp"
#include "lamina/study/report_json.hpp"
#include "lamina/study/report_svg.hpp"
#include "lamina/study/report_table.hpp"

namespace layer_sweep {

/// Mean score of every layer: what top-k is chosen by, also where C is refused.
inline std::vector<double> layer_scores(lamina::sweep_results const& results, index_t layers) {
  std::vector<double> means;
  for (index_t layer = 0; layer < layers; ++layer) {
    auto const scores =
        results.scores(results.variant_named(std::string("layer:") + std::to_string(layer)));
    double total = 0;
    for (auto const& seeds : scores) total += lamina::mean(seeds);
    means.push_back(total / static_cast<double>(scores.size()));
  }
  return means;
}

/// Standard error of a base's score: that of its evaluation, where scores are sampled.
inline double base_score_error(lamina::sweep_results const& results) {
  double largest = 0;
  for (auto const& bases :
       results.extras(results.variant_of(lamina::variant_kind::base), evaluation_error)) {
    for (double const error : bases) {
      if (error > largest) largest = error;
    }
  }
  return largest;
}

/// What a reader has to know besides the numbers.
inline std::vector<std::string> report_notes(lamina::sweep_results const& results) {
  index_t runs = 0;
  double frozen = 0, unmoved = 0;
  for (lamina::run_result const& run : results.runs) {
    for (lamina::named_number const& extra : run.extras) {
      if (extra.name == frozen_moved) {
        ++runs;
        frozen += extra.value;
      }
      if (extra.name == selected_unmoved) unmoved += extra.value;
    }
  }
  std::vector<std::string> notes{
      "Checked bit by bit after each of the " + std::to_string(runs) +
      " training runs: frozen tensors that changed: " + lamina::exact_text(frozen) +
      "; selected tensors that did not move: " + lamina::exact_text(unmoved) + "."};
  for (auto const& base : results.scores(results.variant_of(lamina::variant_kind::base))) {
    if (base[0] >= 0.3 && base[0] <= 0.7) continue;
    char score[16];
    std::snprintf(score, sizeof score, "%.3f", base[0]);
    notes.push_back(std::string("Warning: S_base is ") + score +
                    ", outside 0.3 to 0.7, where a task is too hard or too easy for C to say "
                    "much.");
  }
  return notes;
}

/// Writes every form of the report into a directory.
inline void write_report(std::string const& directory, lamina::sweep_report const& report) {
  auto const write = [&directory](char const* name, std::string const& text) {
    lamina::write_file_atomically(directory + "/" + name, text);
  };
  write("profile.csv", lamina::csv_report(report));
  write("profile.svg", lamina::svg_profile(report));
  write("report.md", lamina::markdown_report(report));
  write("report.html", lamina::html_report(report));
  write("profile.json", lamina::json_report(report));
}

}  // namespace layer_sweep
