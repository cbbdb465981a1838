// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A report as tables: CSV for spreadsheets and scripts, Markdown for people.
#pragma once

#include "lamina/study/detail/report_text.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

inline std::string csv_field(std::string_view text) {
  bool const plain = text.find_first_of(",\"\r\n") == std::string_view::npos;
  if (plain) return std::string(text);
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

inline std::string csv_number(double value) {
  return is_finite(value) ? exact_text(value) : std::string();
}

inline std::string csv_line(std::vector<std::string> const& fields) {
  std::string line;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (i > 0) line += ',';
    line += csv_field(fields[i]);
  }
  return line + '\n';
}

// So that user text is text: no markup, no table cell, no HTML can start in it.
inline std::string escape_markdown(std::string_view text) {
  return escaped(text, [](char c) -> char const* {
    switch (c) {
      case '\\': return "\\\\";
      case '`': return "\\`";
      case '*': return "\\*";
      case '_': return "\\_";
      case '[': return "\\[";
      case ']': return "\\]";
      case '#': return "\\#";
      case '|': return "\\|";
      case '~': return "\\~";
      case '!': return "\\!";
      case '&': return "&amp;";
      case '<': return "&lt;";
      case '>': return "&gt;";
      case '\t':
      case '\n':
      case '\r': return " ";
      default: return nullptr;
    }
  });
}

inline std::string markdown_line(std::vector<std::string> const& cells) {
  std::string line = "|";
  for (std::string const& cell : cells) line += ' ' + escape_markdown(cell) + " |";
  return line + '\n';
}

inline std::string markdown_table(report_table const& table) {
  std::string text = markdown_line(table.columns) + '|';
  for (std::size_t c = 0; c < table.columns.size(); ++c) {
    text += c >= 2 ? " ---: |" : " --- |";
  }
  text += '\n';
  for (auto const& row : table.rows) text += markdown_line(row);
  return text;
}

inline std::string markdown_list(std::vector<std::string> const& sentences) {
  std::string text;
  for (std::string const& sentence : sentences) text += "- " + escape_markdown(sentence) + '\n';
  return text;
}

}  // namespace detail

/// One line a variant after a header line; quoting as in RFC 4180, lines end in \n. Numbers have
/// all their digits and are empty where there is none; extras are means over the variant's runs, in
/// columns "mean <name>".
inline std::string csv_report(sweep_report const& report) {
  std::vector<std::string> const extras = detail::extra_names(report);
  std::vector<std::string> header{"variant",
                                  "kind",
                                  "layer",
                                  "trained",
                                  "learning_rate",
                                  "steps",
                                  "seeds",
                                  "score",
                                  "score_standard_error",
                                  "contribution",
                                  "contribution_standard_error",
                                  "interval_low",
                                  "interval_high"};
  for (std::string const& name : extras) header.push_back("mean " + name);
  header.push_back("notes");
  std::string text = detail::csv_line(header);
  for (std::size_t v = 0; v < report.results.plan.variants.size(); ++v) {
    sweep_variant const& variant = report.results.plan.variants[v];
    contribution const& measured = report.contributions[v];
    bool const is_layer = variant.kind == variant_kind::layer;
    std::vector<std::string> fields{variant.name,
                                    name_of(variant.kind),
                                    is_layer ? std::to_string(variant.layer) : std::string(),
                                    variant.trained,
                                    detail::csv_number(variant.learning_rate),
                                    std::to_string(variant.steps),
                                    std::to_string(detail::seed_count(report, v)),
                                    detail::csv_number(measured.score),
                                    detail::csv_number(measured.score_error),
                                    detail::csv_number(measured.value),
                                    detail::csv_number(measured.standard_error),
                                    detail::csv_number(measured.confidence.low),
                                    detail::csv_number(measured.confidence.high)};
    for (std::string const& name : extras) {
      fields.push_back(detail::csv_number(detail::extra_mean(report, v, name)));
    }
    fields.push_back(variant.notes);
    text += detail::csv_line(fields);
  }
  return text;
}

/// The report as GitHub-flavoured Markdown.
inline std::string markdown_report(sweep_report const& report) {
  std::string text = "# " + detail::escape_markdown(report.title) + "\n\n";
  for (std::string const& sentence : detail::headline(report)) {
    text += detail::escape_markdown(sentence) + '\n';
  }
  text += "\nC = (S - S_base) / (S_full - S_base): 0 is the untrained model, 1 is full training.\n";
  auto const section = [&](char const* title, detail::report_table const& table) {
    if (table.rows.empty()) return;
    text += detail::join("\n## ", title, "\n\n") + detail::markdown_table(table);
  };
  section("Layers", detail::table_of(report, true));
  section("Reference runs, selections and controls", detail::table_of(report, false));
  std::vector<std::string> remarks = report.profile.caveats;
  for (auto const& note : report.notes) remarks.push_back(note);
  if (!remarks.empty()) text += "\n## How to read this\n\n" + detail::markdown_list(remarks);
  text += "\n## Provenance\n\n| setting | value |\n| --- | --- |\n";
  for (report_setting const& setting : detail::provenance_of(report)) {
    text += detail::markdown_line({setting.key, setting.value});
  }
  return text;
}

LAMINA_NAMESPACE_END
