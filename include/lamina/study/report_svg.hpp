// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The pictures of a report: the profile over layers, and selections and controls beside each other.
// Colours are Okabe and Ito's (told apart by colour-blind readers) and follow the reader's light or
// dark theme.
#pragma once

#include "lamina/study/report_text.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

inline constexpr char const* svg_style = R"css(<style>
.lamina-chart{font:13px system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.lamina-chart .card{fill:#ffffff;stroke:#d8dee4}
.lamina-chart text{fill:#57606a}
.lamina-chart .title{fill:#1f2328;font-size:17px;font-weight:600}
.lamina-chart .strong{fill:#1f2328;font-weight:600}
.lamina-chart .small{font-size:11.5px}
.lamina-chart .grid{stroke:#eaeef2}
.lamina-chart .reference{stroke:#6e7781;stroke-width:1.25}
.lamina-chart .dashed{stroke-dasharray:5 4}
.lamina-chart .bar{fill:#0072b2;fill-opacity:.8}
.lamina-chart .bar.best{fill:#d55e00;fill-opacity:.85}
.lamina-chart .bar.control{fill:#8c959f}
.lamina-chart .whisker{stroke:#1f2328;stroke-width:1.5;fill:none}
.lamina-chart .sample{fill:#ffffff;stroke:#1f2328;stroke-width:1;fill-opacity:.85}
@media (prefers-color-scheme:dark){
.lamina-chart .card{fill:#161b22;stroke:#30363d}
.lamina-chart text{fill:#9da7b1}
.lamina-chart .title,.lamina-chart .strong{fill:#e6edf3}
.lamina-chart .grid{stroke:#262c34}
.lamina-chart .reference{stroke:#8b949e}
.lamina-chart .bar{fill:#56b4e9;fill-opacity:.75}
.lamina-chart .bar.best{fill:#e69f00;fill-opacity:.85}
.lamina-chart .bar.control{fill:#8b949e}
.lamina-chart .whisker{stroke:#e6edf3}
.lamina-chart .sample{fill:#161b22;stroke:#e6edf3}
}
</style>
)css";

// One bar: a value on the common axis, its interval, and the single measurements behind it.
struct chart_bar {
  std::string label;
  std::string detail;  // second line, and the start of the tooltip
  std::string look;    // "", "best" or "control"
  double value = not_a_number;
  interval range{};
  std::vector<double> samples;
};

// Maps values to pixels, with round ticks.
struct chart_axis {
  double low = 0;
  double high = 1;
  double step = 0.25;
  int digits = 2;
  double pixel_low = 0;
  double pixel_high = 1;

  double operator()(double value) const {
    double const inside = value < low ? low : value > high ? high : value;
    return pixel_low + (inside - low) / (high - low) * (pixel_high - pixel_low);
  }
};

// An axis over both references and all bars. Intervals count up to one reference distance beyond
// the values: a hopelessly wide one is cut at the edge and does not flatten the rest.
inline chart_axis axis_over(std::vector<chart_bar> const& bars, double zero, double one) {
  double low = (std::min)(zero, one);
  double high = (std::max)(zero, one);
  double const reach = high > low ? (high - low) * 0.6 : 0.5;
  auto const include = [&](double value) {
    if (is_nan(value)) return;
    low = (std::min)(low, value);
    high = (std::max)(high, value);
  };
  for (chart_bar const& bar : bars) {
    include(bar.value);
    for (double sample : bar.samples) include(sample);
  }
  double const value_low = low;
  double const value_high = high;
  for (chart_bar const& bar : bars) {
    if (!is_nan(bar.range.low)) include((std::max)(bar.range.low, value_low - reach));
    if (!is_nan(bar.range.high)) include((std::min)(bar.range.high, value_high + reach));
  }
  if (!(high > low)) high = low + 1;
  chart_axis axis;
  double const rough = (high - low) / 6;
  double const magnitude = std::pow(10.0, std::floor(std::log10(rough)));
  double const ratio = rough / magnitude;
  axis.step = magnitude * (ratio <= 1     ? 1
                           : ratio <= 2   ? 2
                           : ratio <= 2.5 ? 2.5
                           : ratio <= 5   ? 5
                                          : 10);
  axis.digits = 0;
  for (double unit = axis.step; axis.digits < 6 && std::abs(unit - std::round(unit)) > 1e-9;
       unit *= 10) {
    ++axis.digits;
  }
  axis.low = std::floor(low / axis.step + 1e-9) * axis.step;
  axis.high = std::ceil(high / axis.step - 1e-9) * axis.step;
  return axis;
}

inline std::string px(double value) { return fixed_text(value, 1); }

inline std::string svg_text(double x, double y, char const* anchor, char const* look,
                            std::string_view text) {
  return join("<text x=\"", px(x), "\" y=\"", px(y), "\" text-anchor=\"", anchor, "\" class=\"",
              look, "\">") +
         escape_xml(text) + "</text>\n";
}

inline std::string svg_line(double x1, double y1, double x2, double y2, char const* look) {
  return join("<line x1=\"", px(x1), "\" y1=\"", px(y1), "\" x2=\"", px(x2), "\" y2=\"", px(y2),
              "\" class=\"", look, "\"/>\n");
}

inline std::string svg_bar(double x, double y, double width, double height,
                           std::string const& look) {
  return join("<rect x=\"", px(x), "\" y=\"", px(y), "\" width=\"", px(width), "\" height=\"",
              px(height), "\" rx=\"2\" class=\"bar ", look, "\"/>\n");
}

// `text` cut to `limit` characters.
inline std::string shortened(std::string const& text, std::size_t limit) {
  std::string result;
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); ++count) {
    if (count + 1 == limit) return result + "\xE2\x80\xA6";
    std::size_t const length = (std::max)(utf8_length(text, at), std::size_t{1});
    result += text.substr(at, length);
    at += length;
  }
  return result;
}

// The frame, title and subtitle every chart has.
inline std::string svg_begin(double width, double height, std::string const& title,
                             std::string const& subtitle) {
  return join("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"lamina-chart\" viewBox=\"0 0 ",
              px(width), " ", px(height), "\" width=\"", px(width), "\" height=\"", px(height),
              "\" role=\"img\" aria-label=\"") +
         escape_xml(title + ". " + subtitle) + "\">\n" + svg_style +
         join("<rect x=\"0.5\" y=\"0.5\" width=\"", px(width - 1), "\" height=\"", px(height - 1),
              "\" rx=\"10\" class=\"card\"/>\n") +
         svg_text(24, 34, "start", "title", title) + svg_text(24, 55, "start", "", subtitle);
}

inline std::string tooltip(chart_bar const& bar, char const* symbol, int digits) {
  std::string text = bar.label + ": " + symbol + " = " + fixed_text(bar.value, digits);
  if (!is_nan(bar.range.low)) text += " (" + interval_text(bar.range, digits) + ")";
  if (!bar.detail.empty()) text += ", " + bar.detail;
  return "<title>" + escape_xml(text) + "</title>\n";
}

// Single measurements of a variant on the contribution scale (or as scores, where C is refused):
// one a seed of a single base, otherwise one a base.
inline chart_bar bar_of(sweep_report const& report, std::size_t v) {
  sweep_variant const& variant = report.results.plan.variants[v];
  contribution const& measured = report.contributions[v];
  contribution_scale const& scale = report.profile.scale;
  chart_bar bar;
  bar.label = variant.name;
  bar.detail = budget_text(variant);
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

  double const slot = (std::max)(9.0, (std::min)(84.0, 760.0 / static_cast<double>(bars.size())));
  double const left = 76, right = 104, top = 92, plot_height = 280;
  double const plot_width = (std::max)(420.0, slot * static_cast<double>(bars.size()));
  double const start = left + (plot_width - slot * static_cast<double>(bars.size())) / 2;
  double const bottom = top + plot_height;
  detail::chart_axis axis = detail::axis_over(bars, zero, one);
  axis.pixel_low = bottom;
  axis.pixel_high = top;

  std::string svg = detail::svg_begin(
      left + plot_width + right, bottom + 64,
      measurable ? "Layer contribution C" : "Score by layer (no contribution is given)",
      measurable ? "C = (S \xE2\x88\x92 S_base) / (S_full \xE2\x88\x92 S_base);  " +
                       detail::samples_text(report)
                 : scale.refusal());
  svg +=
      detail::svg_text(24, 74, "start", "small",
                       "single layer: " + detail::budgets_text(report, variant_kind::layer) +
                           ";  full training: " + detail::budgets_text(report, variant_kind::full));
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
    if (!is_nan(bar.range.low)) {
      svg += detail::svg_line(x, axis(bar.range.low), x, axis(bar.range.high), "whisker");
      double const cap = (std::min)(5.0, width / 3);
      for (double end : {bar.range.low, bar.range.high}) {
        if (end < axis.low || end > axis.high) continue;  // cut at the edge: no cap
        svg += detail::svg_line(x - cap, axis(end), x + cap, axis(end), "whisker");
      }
    }
    double const spread = (std::min)(width * 0.22, 9.0);
    for (std::size_t i = 0; i < bar.samples.size(); ++i) {
      double const share =
          (static_cast<double>(i) + 0.5) / static_cast<double>(bar.samples.size()) - 0.5;
      svg += detail::join("<circle cx=\"", detail::px(x + 2 * spread * share), "\" cy=\"",
                          detail::px(axis(bar.samples[i])), "\" r=\"2.5\" class=\"sample\"/>\n");
    }
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
    if (best) bars.back().label += " (best single layer)";
  }
  bool const only_best = bars.size() == 1 && bars[0].look == "best";
  if (bars.empty() || only_best || !report.profile.measurable()) return {};

  double const width = 940, left = 300, right = 180, top = 78, row = 42;
  double const bottom = top + row * static_cast<double>(bars.size());
  detail::chart_axis axis = detail::axis_over(bars, 0, 1);
  axis.pixel_low = left;
  axis.pixel_high = width - right;
  std::string svg = detail::svg_begin(width, bottom + 56, "Selections and controls",
                                      "contribution C of each;  " + detail::samples_text(report));
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
    svg += detail::svg_text(24, y - 2, "start", "strong", detail::shortened(bar.label, 38));
    svg += detail::svg_text(24, y + 14, "start", "small", bar.detail);
    double const x = axis(bar.value);
    svg += detail::svg_bar((std::min)(x, axis(0)), y - 9, std::abs(x - axis(0)), 18, bar.look);
    std::string numbers = detail::fixed_text(bar.value, 2);
    if (!is_nan(bar.range.low)) {
      svg += detail::svg_line(axis(bar.range.low), y, axis(bar.range.high), y, "whisker");
      for (double end : {bar.range.low, bar.range.high}) {
        if (end < axis.low || end > axis.high) continue;
        svg += detail::svg_line(axis(end), y - 5, axis(end), y + 5, "whisker");
      }
      numbers += "  (" + detail::interval_text(bar.range, 2) + ")";
    }
    for (double sample : bar.samples) {
      svg += detail::join("<circle cx=\"", detail::px(axis(sample)), "\" cy=\"", detail::px(y),
                          "\" r=\"2.5\" class=\"sample\"/>\n");
    }
    svg += detail::svg_text(width - right + 16, y + 4, "start", "strong", numbers) + "</g>\n";
  }
  return svg + "</svg>\n";
}

LAMINA_NAMESPACE_END
