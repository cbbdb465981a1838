// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The report on the terminal: the profile as a table with bars, the other rows, the result in
// words.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>

#include "lamina/study/report.hpp"

namespace layer_sweep {

namespace detail {

// "0.52", or a dash where there is no number.
inline std::string cell(double value, char const* format = "%.2f") {
  if (lamina::is_nan(value)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  bool const zero = std::string_view(text).find_first_of("123456789") == std::string_view::npos;
  return zero && text[0] == '-' ? text + 1 : text;
}

// A bar from 0 to C, ten characters for full training, with a mark there.
inline std::string bar(double c) {
  std::string text(15, ' ');
  text[9] = '|';
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (static_cast<double>(i) + 0.5 < 10 * c) text[i] = '#';
  }
  return text;
}

inline void print_row(lamina::sweep_report const& report, std::size_t v) {
  lamina::sweep_variant const& variant = report.results.plan.variants[v];
  lamina::contribution const& c = report.contributions[v];
  std::string interval;
  if (!lamina::is_nan(c.confidence.low)) {
    interval = cell(c.confidence.low) + " to " + cell(c.confidence.high);
  }
  auto const seeds = report.results.scores(static_cast<lamina::index_t>(v))[0].size();
  std::printf("%-14s %8s %6lld %5zu  %6s %6s  %6s %6s  %-14s %s\n", variant.name.c_str(),
              cell(variant.learning_rate, "%.3g").c_str(), static_cast<long long>(variant.steps),
              seeds, cell(c.score, "%.3f").c_str(), cell(c.score_error, "%.3f").c_str(),
              cell(c.value).c_str(), cell(c.standard_error).c_str(), interval.c_str(),
              bar(lamina::is_nan(c.value) ? 0 : c.value).c_str());
}

}  // namespace detail

/// Prints the tables and what they say to standard output.
inline void print_report(lamina::sweep_report const& report) {
  auto const& variants = report.results.plan.variants;
  auto const title = [](char const* text) {
    std::printf("\n%-14s %8s %6s %5s  %6s %6s  %6s %6s  %-14s %s\n", text, "rate", "steps", "seeds",
                "S", "+-", "C", "+-", "95 % of C", "0        1");
  };
  for (bool const layers : {true, false}) {
    bool first = true;
    for (std::size_t v = 0; v < variants.size(); ++v) {
      if ((variants[v].kind == lamina::variant_kind::layer) != layers) continue;
      if (first) title(layers ? "single layer" : "reference");
      first = false;
      detail::print_row(report, v);
    }
  }
  lamina::contribution_profile const& profile = report.profile;
  auto const full = report.results.variant_of(lamina::variant_kind::full);
  auto const& full_training = variants[static_cast<std::size_t>(full)];
  std::printf(
      "\nC = (S - S_base) / (S_full - S_base) with S_base %.3f and S_full %.3f (%s;\n"
      "learning rate %.3g, %lld steps)\n",
      profile.scale.base_score(), profile.scale.full_score(), full_training.trained.c_str(),
      full_training.learning_rate, static_cast<long long>(full_training.steps));
  if (!profile.measurable()) {
    std::printf("No contribution is given: %s.\n", profile.scale.refusal().c_str());
  } else if (profile.best.layer >= 0) {
    std::printf("The best single layer is layer %lld with C = %.2f",
                static_cast<long long>(profile.best.layer), profile.best.apparent);
    if (!lamina::is_nan(profile.best.corrected)) {
      auto const measured = std::count_if(
          profile.layers.begin(), profile.layers.end(),
          [](lamina::contribution const& layer) { return !lamina::is_nan(layer.value); });
      std::printf(" (%.2f after paying for the choice among %lld)", profile.best.corrected,
                  static_cast<long long>(measured));
    }
    std::printf(".\n");
  }
  for (std::string const& note : report.notes) std::printf("%s\n", note.c_str());
}

}  // namespace layer_sweep
