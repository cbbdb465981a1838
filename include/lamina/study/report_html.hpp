// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A report as one HTML page that needs nothing else: pictures and style are inside, no scripts.
#pragma once

#include "lamina/study/report_svg.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

inline constexpr char const* html_style = R"css(
:root {
  color-scheme: light dark;
  --text: #1f2328; --soft: #57606a; --page: #f6f8fa; --card: #ffffff; --line: #d8dee4;
  --accent: #0072b2; --warm: #d55e00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e6edf3; --soft: #9da7b1; --page: #0d1117; --card: #161b22; --line: #30363d;
    --accent: #56b4e9; --warm: #e69f00;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 12px; }
h2 { font-size: 19px; margin: 44px 0 12px; }
p { margin: 0; max-width: 92ch; }
.cards {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px;
  margin: 24px 0;
}
.cards div, .scroll {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
.cards div { padding: 14px 16px; }
.cards b { display: block; font-size: 25px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.cards span { color: var(--soft); font-size: 13px; }
.cards .best b { color: var(--warm); }
svg { display: block; width: 100%; height: auto; margin: 14px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td {
  padding: 8px 12px; text-align: left; vertical-align: top; border-top: 1px solid var(--line);
}
td:nth-child(2) { min-width: 11em; }
thead th { border-top: 0; color: var(--soft); font-weight: 600; font-size: 12.5px; }
td.number, th.number {
  text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums;
}
tr.best td { color: var(--warm); font-weight: 600; }
li { margin: 0 0 6px; max-width: 92ch; }
summary { cursor: pointer; color: var(--accent); margin: 12px 0; }
)css";

inline std::string html_cell(char const* tag, bool number, std::string_view text) {
  return join("<", tag, number ? " class=\"number\">" : ">") + escape_xml(text) +
         join("</", tag, ">");
}

// first_number, last_number: columns set to the right.
inline std::string html_table(report_table const& table, std::size_t first_number,
                              std::size_t last_number, std::string_view best) {
  auto const number = [&](std::size_t c) { return c >= first_number && c <= last_number; };
  std::string html = "<div class=\"scroll\"><table>\n<thead><tr>";
  for (std::size_t c = 0; c < table.columns.size(); ++c) {
    html += html_cell("th", number(c), table.columns[c]);
  }
  html += "</tr></thead>\n<tbody>\n";
  for (auto const& row : table.rows) {
    html += !best.empty() && row[0] == best ? "<tr class=\"best\">" : "<tr>";
    for (std::size_t c = 0; c < row.size(); ++c) html += html_cell("td", number(c), row[c]);
    html += "</tr>\n";
  }
  return html + "</tbody>\n</table></div>\n";
}

inline std::string html_card(char const* look, std::string const& value, std::string const& what) {
  return join("<div", look, "><b>") + escape_xml(value) + "</b><span>" + escape_xml(what) +
         "</span></div>\n";
}

inline std::string html_cards(sweep_report const& report) {
  contribution_profile const& profile = report.profile;
  contribution_scale const& scale = profile.scale;
  std::string html = "<div class=\"cards\">\n";
  html += html_card("", fixed_text(scale.base_score(), 3), "score of the untrained base");
  html += html_card(
      "", fixed_text(scale.full_score(), 3),
      "score after full training (gain " + score_text(scale.gain(), scale.gain_error()) + ")");
  if (profile.best.layer >= 0) {
    html += html_card(" class=\"best\"", join("layer ", profile.best.layer), "best single layer");
    std::string what = "its contribution C";
    if (profile.best.fold_count > 1) {
      what += ", " + fixed_text(profile.best.corrected, 2) + " corrected for choosing the best";
    }
    html += html_card(" class=\"best\"", fixed_text(profile.best.apparent, 2), what);
  }
  return html + "</div>\n";
}

inline std::string html_list(std::vector<std::string> const& sentences) {
  std::string html = "<ul>\n";
  for (std::string const& sentence : sentences) html += "<li>" + escape_xml(sentence) + "</li>\n";
  return html + "</ul>\n";
}

// Every single score, for readers who want to compute themselves.
inline report_table raw_scores(sweep_report const& report) {
  std::vector<std::string> const extras = extra_names(report);
  report_table table{{"variant", "base", "seed", "score"}, {}};
  for (auto const& extra : extras) table.columns.push_back(extra);
  for (run_result const& run : report.results.runs) {
    std::vector<std::string> row{
        report.results.plan.variants[static_cast<std::size_t>(run.variant)].name,
        std::to_string(run.base), std::to_string(run.seed), fixed_text(run.score, 5)};
    for (std::string const& name : extras) {
      double value = not_a_number;
      for (named_number const& extra : run.extras) {
        if (extra.name == name) value = extra.value;
      }
      row.push_back(fixed_text(value, 5));
    }
    table.rows.push_back(row);
  }
  return table;
}

}  // namespace detail

/// The report as one self-contained HTML page: no external resources, no scripts, light and dark.
inline std::string html_report(sweep_report const& report) {
  std::string const title = detail::escape_xml(report.title);
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      title + "</title>\n<style>" + detail::html_style + "</style>\n</head>\n<body>\n<main>\n<h1>" +
      title + "</h1>\n";
  html += "<p>";
  for (std::string const& sentence : detail::headline(report)) {
    html += detail::escape_xml(sentence) + '\n';
  }
  html += "</p>\n";
  html += detail::html_cards(report) + svg_profile(report) + svg_selections(report);

  std::string best;
  for (sweep_variant const& variant : report.results.plan.variants) {
    bool const is_best =
        variant.kind == variant_kind::layer && variant.layer == report.profile.best.layer;
    if (is_best) best = variant.name;
  }
  auto const section = [&](char const* name, detail::report_table const& table) {
    if (table.rows.empty()) return;
    html += detail::join("<h2>", name, "</h2>\n") +
            detail::html_table(table, 2, table.columns.size() - 1, best);
  };
  section("Layers", detail::table_of(report, true));
  section("Reference runs, selections and controls", detail::table_of(report, false));
  std::vector<std::string> remarks = report.profile.caveats;
  for (auto const& note : report.notes) remarks.push_back(note);
  if (!remarks.empty()) html += "<h2>How to read this</h2>\n" + detail::html_list(remarks);

  detail::report_table settings{{"setting", "value"}, {}};
  for (report_setting const& setting : detail::provenance_of(report)) {
    settings.rows.push_back({setting.key, setting.value});
  }
  html += "<h2>Provenance</h2>\n" + detail::html_table(settings, 2, 2, {});
  detail::report_table const raw = detail::raw_scores(report);
  html += "<details><summary>Every single score</summary>\n" +
          detail::html_table(raw, 1, raw.columns.size() - 1, {}) + "</details>\n";
  return html + "</main>\n</body>\n</html>\n";
}

LAMINA_NAMESPACE_END
