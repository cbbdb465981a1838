// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The pictures of a report: the profile over layers, and selections and controls beside each other.
#pragma once

#include "lamina/study/detail/chart.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Single measurements of a variant on the contribution scale (or as scores, where C is refused):
// one a seed of a single base, otherwise one a base.
inline chart_bar bar_of(sweep_report const& report, std::size_t v) {
  sweep_variant const& variant = report.results.plan.variants[v];
  contribution const& measured = report.contributions[v];
  contribution_scale const& scale = report.profile.scale;
  chart_bar bar;
  bar.label = variant.name;
  bar.trained = variant.trained;
  bar.budget = budget_text(variant);
  bar.look = variant.kind == variant_kind::control ? "control" : "";
  bar.value = scale.measurable() ? measured.value : measured.score;
  if (scale.measurable()) bar.range = measured.confidence;
  score_table const scores = report.results.scores(static_cast<index_t>(v));
  if (scores.size() > 1) {
    for (std::size_t base = 0; base < scores.size(); ++base) {
      bar.samples.push_back(scale.measurable() ? measured.by_base[base] : mean(scores[base]));
    }
  } else if (scores[0].size() > 1) {
    for (double score : scores[0]) {
      bar.samples.push_back(scale.measurable() ? (score - scale.base_score()) / scale.gain()
                                               : score);
    }
  }
  return bar;
}

inline std::string samples_text(sweep_report const& report) {
  std::string text = report.results.plan.bases > 1
                         ? join("one dot a base (", report.results.plan.bases, ")")
                         : std::string("one dot a seed");
  if (report.profile.measurable()) {
    text += join(", whiskers ", confidence_text(report), " intervals");
  }
  return text;
}

// The distinct budgets of the variants of one kind, joined: usually one.
inline std::string budgets_text(sweep_report const& report, variant_kind kind) {
  std::vector<std::string> seen;
  std::string text;
  for (sweep_variant const& variant : report.results.plan.variants) {
    std::string const budget = budget_text(variant);
    if (variant.kind != kind || std::find(seen.begin(), seen.end(), budget) != seen.end()) continue;
    seen.push_back(budget);
    text += (text.empty() ? "" : " / ") + budget;
  }
  return text;
}

}  // namespace detail

/// The profile: a bar a layer with its interval and the single measurements, lines at the untrained
/// base and at full training, budget and learning rates in the subtitle. Scores instead of
/// contributions where C is refused. A complete SVG document; also stands inside HTML.
inline std::string svg_profile(sweep_report const& report) {
  contribution_scale const& scale = report.profile.scale;
  bool const measurable = scale.measurable();
  std::vector<detail::chart_bar> bars(report.profile.layers.size());
  for (std::size_t layer = 0; layer < bars.size(); ++layer) {
    bars[layer].label = detail::join("layer ", layer);
  }
  for (std::size_t v = 0; v < report.results.plan.variants.size(); ++v) {
    sweep_variant const& variant = report.results.plan.variants[v];
    if (variant.kind != variant_kind::layer) continue;
    detail::chart_bar& bar = bars[static_cast<std::size_t>(variant.layer)];
    std::string const label = bar.label;
    bar = detail::bar_of(report, v);
    bar.label = label;
    if (variant.layer == report.profile.best.layer) bar.look = "best";
  }
  double const zero = measurable ? 0 : scale.base_score();
  double const one = measurable ? 1 : scale.full_score();
  int const digits = measurable ? 2 : 3;

  double const layer_count = static_cast<double>(bars.size());
  double const slot = (std::max)(9.0, (std::min)(120.0, 760 / layer_count));
  double const left = 76, right = 104, plot_height = 280;
  double const plot_width = (std::max)(760.0, slot * layer_count);
  double const start = left + (plot_width - slot * layer_count) / 2;
  std::string const about = measurable
                                ? "C = (S \xE2\x88\x92 S_base) / (S_full \xE2\x88\x92 S_base); " +
                                      detail::samples_text(report)
                                : scale.refusal() + "; " + detail::samples_text(report);
  std::vector<std::string> lines = detail::wrapped(about, 120);
  for (std::string& line :
       detail::wrapped("single layer: " + detail::budgets_text(report, variant_kind::layer) +
                           "; full training: " + detail::budgets_text(report, variant_kind::full),
                       120)) {
    lines.push_back(std::move(line));
  }
  double const top = 68 + 18 * static_cast<double>(lines.size());
  double const bottom = top + plot_height;
  detail::chart_axis axis = detail::axis_over(bars, zero, one);
  axis.pixel_low = bottom;
  axis.pixel_high = top;

  std::string svg = detail::svg_begin(
      left + plot_width + right, bottom + 62,
      measurable ? "Layer contribution C" : "Score by layer (no contribution is given)", lines);
  for (double tick = axis.low; tick < axis.high + axis.step / 2; tick += axis.step) {
    svg += detail::svg_line(left, axis(tick), left + plot_width, axis(tick), "grid");
    svg += detail::svg_text(left - 10, axis(tick) + 4, "end", "",
                            detail::fixed_text(tick, axis.digits));
  }
  for (bool const full : {false, true}) {
    double const y = axis(full ? one : zero);
    svg += detail::svg_line(left, y, left + plot_width, y, full ? "reference dashed" : "reference");
    svg += detail::svg_text(left + plot_width + 10, y - 1, "start", "small strong",
                            full ? "full training" : "untrained");
    svg += detail::svg_text(
        left + plot_width + 10, y + 13, "start", "small",
        "S = " + detail::fixed_text(full ? scale.full_score() : scale.base_score(), 3));
  }
  std::size_t const every = slot >= 20 ? 1 : slot >= 12 ? 2 : 5;
  for (std::size_t layer = 0; layer < bars.size(); ++layer) {
    detail::chart_bar const& bar = bars[layer];
    double const x = start + slot * (static_cast<double>(layer) + 0.5);
    if (layer % every == 0) {
      svg += detail::svg_text(x, bottom + 20, "middle", bar.look == "best" ? "strong" : "",
                              std::to_string(layer));
    }
    if (is_nan(bar.value)) continue;
    double const width = slot * 0.62;
    double const y = axis(bar.value);
    svg += "<g>\n" + detail::tooltip(bar, measurable ? "C" : "S", digits);
    svg += detail::svg_bar(x - width / 2, (std::min)(y, axis(zero)), width,
                           std::abs(y - axis(zero)), bar.look);
    svg += detail::svg_marks(bar, axis, true, x, (std::min)(5.0, width / 3),
                             (std::min)(width * 0.5, 20.0));
    if (slot >= 30) {
      double const above = is_nan(bar.range.high) ? bar.value : bar.range.high;
      svg += detail::svg_text(x, axis((std::max)(above, zero)) - 8, "middle", "small strong",
                              detail::fixed_text(bar.value, digits));
    }
    svg += "</g>\n";
  }
  svg += detail::svg_text(left + plot_width / 2, bottom + 44, "middle", "",
                          "decoder layer (0 is next to the embeddings)");
  return svg + "</svg>\n";
}

/// Selections and controls with the best single layer, one line each: what was trained, its budget
/// and learning rate, C with its interval. Empty text if the sweep has none or C is refused.
inline std::string svg_selections(sweep_report const& report) {
  std::vector<detail::chart_bar> bars;
  for (std::size_t v = 0; v < report.results.plan.variants.size(); ++v) {
    sweep_variant const& variant = report.results.plan.variants[v];
    bool const best =
        variant.kind == variant_kind::layer && variant.layer == report.profile.best.layer;
    if (!best && variant.kind != variant_kind::selection && variant.kind != variant_kind::control) {
      continue;
    }
    bars.push_back(detail::bar_of(report, v));
    if (best) bars.back().look = "best";
    if (best) bars.back().trained = "best single layer";
  }
  bool const only_best = bars.size() == 1 && bars[0].look == "best";
  if (bars.empty() || only_best || !report.profile.measurable()) return {};

  double const width = 940, left = 330, right = 176, top = 84, row = 42;
  double const bottom = top + row * static_cast<double>(bars.size());
  detail::chart_axis axis = detail::axis_over(bars, 0, 1);
  axis.pixel_low = left;
  axis.pixel_high = width - right;
  std::string svg = detail::svg_begin(width, bottom + 56, "Selections and controls",
                                      {"contribution C of each; " + detail::samples_text(report)});
  for (double tick = axis.low; tick < axis.high + axis.step / 2; tick += axis.step) {
    svg += detail::svg_line(axis(tick), top, axis(tick), bottom, "grid");
    svg += detail::svg_text(axis(tick), bottom + 20, "middle", "",
                            detail::fixed_text(tick, axis.digits));
  }
  svg += detail::svg_line(axis(0), top, axis(0), bottom, "reference");
  svg += detail::svg_line(axis(1), top, axis(1), bottom, "reference dashed");
  svg += detail::svg_text(axis(0), bottom + 40, "middle", "small", "untrained");
  svg += detail::svg_text(axis(1), bottom + 40, "middle", "small", "full training");
  for (std::size_t i = 0; i < bars.size(); ++i) {
    detail::chart_bar const& bar = bars[i];
    double const y = top + row * (static_cast<double>(i) + 0.5);
    svg += "<g>\n" + detail::tooltip(bar, "C", 2);
    std::string const label = detail::shortened(bar.label, 36);
    // What is trained fills the rest of the line, at 7.4 and 5.9 pixels a character.
    double const room = left - 40 - 7.4 * static_cast<double>(detail::character_count(label));
    svg += detail::join("<text x=\"24.0\" y=\"", detail::px(y - 2), "\"><tspan class=\"strong\">") +
           detail::escape_xml(label) + "</tspan>";
    if (room > 60) {
      svg +=
          "<tspan class=\"small\">  " +
          detail::escape_xml(detail::shortened(bar.trained, static_cast<std::size_t>(room / 5.9))) +
          "</tspan>";
    }
    svg += "</text>\n" + detail::svg_text(24, y + 14, "start", "small", bar.budget);
    double const x = axis(bar.value);
    svg += detail::svg_bar((std::min)(x, axis(0)), y - 9, std::abs(x - axis(0)), 18, bar.look);
    std::string numbers = detail::fixed_text(bar.value, 2);
    if (!is_nan(bar.range.low)) numbers += " (" + detail::interval_text(bar.range, 2) + ")";
    svg += detail::svg_marks(bar, axis, false, y, 5, 0);
    svg += detail::svg_text(width - right + 16, y + 4, "start", "strong", numbers) + "</g>\n";
  }
  return svg + "</svg>\n";
}

LAMINA_NAMESPACE_END
