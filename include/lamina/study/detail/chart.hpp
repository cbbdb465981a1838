// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The parts charts are drawn with: an axis, bars with intervals, SVG primitives and their style.
// Colours are Okabe and Ito's (told apart by colour-blind readers) and follow the reader's light or
// dark theme.
#pragma once

#include "lamina/study/detail/report_text.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

inline constexpr char const* svg_style = R"css(<style>
.lamina-chart{font:13px system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.lamina-chart .card{fill:#ffffff;stroke:#d8dee4}
.lamina-chart text{fill:#57606a}
.lamina-chart .soft{font-size:12.5px}
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
  std::string trained;
  std::string budget;
  std::string look;  // "", "best" or "control"
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

// Characters of a text, not bytes.
inline std::size_t character_count(std::string_view text) {
  std::size_t count = 0;
  for (char c : text) count += (static_cast<unsigned char>(c) & 0xc0u) != 0x80u ? 1u : 0u;
  return count;
}

// `text` cut to `limit` characters, the last then an ellipsis.
inline std::string shortened(std::string const& text, std::size_t limit) {
  if (character_count(text) <= limit) return text;
  std::size_t end = 0;
  for (std::size_t count = 0; count + 1 < limit; ++count) {
    end += (std::max)(utf8_length(text, end), std::size_t{1});
  }
  return text.substr(0, end) + "\xE2\x80\xA6";
}

// `text` broken at blanks into lines of at most `limit` characters.
inline std::vector<std::string> wrapped(std::string const& text, std::size_t limit) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t const end = (std::min)(text.find(' ', begin), text.size());
    std::string const word = shortened(text.substr(begin, end - begin), limit);
    if (!lines.empty() && character_count(lines.back()) + 1 + character_count(word) <= limit) {
      lines.back() += ' ' + word;
    } else {
      lines.push_back(word);
    }
    begin = end + 1;
  }
  return lines;
}

// Frame, title and the lines below it, the first at 56 pixels and 18 pixels apart.
inline std::string svg_begin(double width, double height, std::string const& title,
                             std::vector<std::string> const& lines) {
  std::string label = title + '.';
  for (std::string const& line : lines) label += ' ' + line;
  std::string svg =
      join("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"lamina-chart\" viewBox=\"0 0 ",
           px(width), " ", px(height), "\" width=\"", px(width), "\" height=\"", px(height),
           "\" role=\"img\" aria-label=\"") +
      escape_xml(label) + "\">\n" + svg_style +
      join("<rect x=\"0.5\" y=\"0.5\" width=\"", px(width - 1), "\" height=\"", px(height - 1),
           "\" rx=\"10\" class=\"card\"/>\n") +
      svg_text(24, 34, "start", "title", title);
  double y = 56;
  for (std::string const& line : lines) {
    svg += svg_text(24, y, "start", "soft", line);
    y += 18;
  }
  return svg;
}

// Whisker with caps, and a dot for each single measurement spread over `spread` pixels. `at` is the
// place across the axis; an end of the interval beyond the axis gets no cap.
inline std::string svg_marks(chart_bar const& bar, chart_axis const& axis, bool vertical, double at,
                             double cap, double spread) {
  auto const line = [&](double from, double to, double across_from, double across_to) {
    return vertical ? svg_line(across_from, from, across_to, to, "whisker")
                    : svg_line(from, across_from, to, across_to, "whisker");
  };
  std::string svg;
  if (!is_nan(bar.range.low)) {
    svg += line(axis(bar.range.low), axis(bar.range.high), at, at);
    for (double end : {bar.range.low, bar.range.high}) {
      if (end < axis.low || end > axis.high) continue;
      svg += line(axis(end), axis(end), at - cap, at + cap);
    }
  }
  double const count = static_cast<double>(bar.samples.size());
  for (std::size_t i = 0; i < bar.samples.size(); ++i) {
    double const across = at + spread * ((static_cast<double>(i) + 0.5) / count - 0.5);
    double const along = axis(bar.samples[i]);
    svg += join("<circle cx=\"", px(vertical ? across : along), "\" cy=\"",
                px(vertical ? along : across), "\" r=\"2.5\" class=\"sample\"/>\n");
  }
  return svg;
}

inline std::string tooltip(chart_bar const& bar, char const* symbol, int digits) {
  std::string text = bar.label + ": " + symbol + " = " + fixed_text(bar.value, digits);
  if (!is_nan(bar.range.low)) text += " (" + interval_text(bar.range, digits) + ")";
  for (std::string const& more : {bar.trained, bar.budget}) {
    if (!more.empty()) text += ", " + more;
  }
  return "<title>" + escape_xml(text) + "</title>\n";
}

}  // namespace detail

LAMINA_NAMESPACE_END
