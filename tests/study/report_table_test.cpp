// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/report_table.hpp"

#include <doctest/doctest.h>

#include "tests/support/synthetic_sweep.hpp"

using lamina::csv_report;
using lamina::markdown_report;
using lamina::testing::hostile_report;
using lamina::testing::refused_report;
using lamina::testing::synthetic_report;

namespace {

using rows_type = std::vector<std::vector<std::string>>;

// RFC 4180, lines ending in a newline.
rows_type read_csv(std::string const& text) {
  rows_type rows;
  std::vector<std::string> row;
  std::string field;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char const c = text[i];
    if (quoted) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field += text[++i];
      } else {
        quoted = false;
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == ',' || c == '\n') {
      row.push_back(field);
      field.clear();
      if (c == '\n') {
        rows.push_back(row);
        row.clear();
      }
    } else {
      field += c;
    }
  }
  CHECK(field.empty());
  CHECK(row.empty());
  return rows;
}

int count(std::string const& text, std::string const& what) {
  int total = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) {
    ++total;
  }
  return total;
}

}  // namespace

TEST_CASE("CSV: a line a variant, every number readable to the last bit") {
  auto const report = synthetic_report(4);
  rows_type const rows = read_csv(csv_report(report));
  REQUIRE(rows.size() == 1 + report.results.plan.variants.size());
  CHECK(rows[0] == std::vector<std::string>{"variant", "kind", "layer", "trained", "learning_rate",
                                            "steps", "seeds", "score", "score_standard_error",
                                            "contribution", "contribution_standard_error",
                                            "interval_low", "interval_high", "mean greedy",
                                            "notes"});
  for (auto const& row : rows) CHECK(row.size() == rows[0].size());
  auto const& layer = rows[4];
  CHECK(layer[0] == "layer:1");
  CHECK(layer[1] == "layer");
  CHECK(layer[2] == "1");
  CHECK(layer[4] == "0.001");
  CHECK(layer[5] == "60");
  CHECK(layer[6] == "3");
  double value = 0;
  CHECK(lamina::parse_number(layer[9], value));
  CHECK(value == report.contributions[3].value);
  CHECK(lamina::parse_number(layer[12], value));
  CHECK(value == report.contributions[3].confidence.high);
  // The base: no layer, no rate, no interval.
  CHECK(rows[1][2].empty());
  CHECK(rows[1][4].empty());
  CHECK(rows[1][9] == "0");
  CHECK(rows[1][11].empty());
  CHECK(rows.back()[14] == "rewards shuffled in each group");
}

TEST_CASE("CSV: any text survives quoting") {
  rows_type const rows = read_csv(csv_report(hostile_report()));
  for (auto const& row : rows) CHECK(row.size() == rows[0].size());
  CHECK(rows[3][0] == std::string("layer:0") + lamina::testing::hostile_text);
  CHECK(rows[0][13] == std::string("mean ") + lamina::testing::hostile_text);
}

TEST_CASE("Markdown: budget and learning rate stand in the row of every C, provenance below") {
  std::string const text = markdown_report(synthetic_report(4));
  CHECK(text.find("# A synthetic profile\n") == 0);
  CHECK(text.find("| layer:1 | layer 1 | 0.001 | 60 | 3 | ") != std::string::npos);
  CHECK(text.find("| full | everything | 3e-4 | 60 | 5 | ") != std::string::npos);
  CHECK(text.find("| by definition |") != std::string::npos);
  CHECK(text.find("The best single layer is layer 3 with C = 0.6") != std::string::npos);
  CHECK(text.find("| task | made up |") != std::string::npos);
  CHECK(text.find("| seeds | 1, 2, 3 |") != std::string::npos);
  CHECK(text.find(std::string("| lamina version | ") + lamina::version) != std::string::npos);
  CHECK(text.find("A note of the program.") != std::string::npos);
  CHECK(text.find("one pretrained base") == std::string::npos);
  CHECK(text.find("One pretrained base") != std::string::npos);
}

TEST_CASE("Markdown: a refused profile says why instead of naming a best layer") {
  std::string const text = markdown_report(refused_report());
  CHECK(text.find("No layer contribution is given: S\\_full - S\\_base is") != std::string::npos);
  CHECK(text.find("best single layer") == std::string::npos);
  CHECK(text.find(" n/a |") != std::string::npos);
}

TEST_CASE("Markdown: hostile text stays text, in its cell") {
  std::string const text = markdown_report(hostile_report());
  CHECK(text.find("<script") == std::string::npos);
  CHECK(count(text, "&lt;script&gt;") > 10);
  // Every table row has as many unescaped pipes as its header.
  std::string pipes = text;
  for (std::size_t at = 0; (at = pipes.find("\\|", at)) != std::string::npos;) pipes.erase(at, 2);
  std::size_t begin = 0;
  int expected = 0;
  while (begin < pipes.size()) {
    std::size_t const end = pipes.find('\n', begin);
    std::string const line = pipes.substr(begin, end - begin);
    begin = end + 1;
    if (line.empty() || line[0] != '|') {
      expected = 0;
      continue;
    }
    if (expected == 0) expected = count(line, "|");
    CHECK(count(line, "|") == expected);
  }
}

TEST_CASE("numbers in tables are short and never minus zero") {
  using lamina::detail::fixed_text;
  using lamina::detail::short_text;
  CHECK(fixed_text(-0.001, 2) == "0.00");
  CHECK(fixed_text(-0.006, 2) == "-0.01");
  CHECK(fixed_text(1e300, 0).size() == 301);
  CHECK(fixed_text(lamina::not_a_number, 2) == "n/a");
  CHECK(short_text(3e-4) == "3e-4");
  CHECK(short_text(0.001) == "0.001");
  CHECK(short_text(1e-10) == "1e-10");
  CHECK(short_text(1e300) == "1e300");
  CHECK(short_text(2e+05) == "2e5");
}

TEST_CASE("markdown: layers are in their order, whatever the order of their training") {
  lamina::sweep_plan plan = lamina::testing::synthetic_plan(4);
  std::swap(plan.variants[2], plan.variants[5]);  // layers 3, 1, 2, 0
  auto const results = lamina::run_sweep(
      plan, {}, lamina::serial_for{},
      [](lamina::sweep_run const& run) { return lamina::testing::synthetic_scores(run, 4); });
  std::string const text = markdown_report(lamina::make_report("Shuffled", {}, results, 4));
  std::size_t last = 0;
  for (char const* row : {"| layer:0 |", "| layer:1 |", "| layer:2 |", "| layer:3 |"}) {
    std::size_t const at = text.find(row);
    REQUIRE(at != std::string::npos);
    CHECK(at > last);
    last = at;
  }
  CHECK(text.substr(last) == [] {
    std::string const sorted = markdown_report(
        lamina::make_report("Shuffled", {}, lamina::testing::synthetic_results(4), 4));
    return sorted.substr(sorted.find("| layer:3 |"));
  }());
}
