// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/report_json.hpp"

#include <doctest/doctest.h>

#include <clocale>
#include <nlohmann/json.hpp>

#include "tests/support/synthetic_sweep.hpp"

using lamina::json_report;
using lamina::testing::hostile_report;
using lamina::testing::refused_report;
using lamina::testing::synthetic_report;
using nlohmann::json;

TEST_CASE("JSON holds every raw score bit for bit, and every number a reader needs") {
  auto const report = synthetic_report(4, 2);
  json const parsed = json::parse(json_report(report));
  auto const& variants = report.results.plan.variants;
  REQUIRE(parsed["variants"].size() == variants.size());
  std::size_t runs = 0;
  for (std::size_t v = 0; v < variants.size(); ++v) {
    json const& written = parsed["variants"][v];
    CHECK(written["name"] == variants[v].name);
    CHECK(written["kind"] == lamina::name_of(variants[v].kind));
    CHECK(written["steps"] == variants[v].steps);
    CHECK(written["contribution"].get<double>() == report.contributions[v].value);
    for (json const& run : written["runs"]) {
      auto const& original = report.results.runs[runs++];
      CHECK(run["score"].get<double>() == original.score);
      CHECK(run["seed"].get<std::uint64_t>() == original.seed);
      CHECK(run["base"] == original.base);
      CHECK(run["extras"]["greedy"].get<double>() == original.extras[0].value);
    }
  }
  CHECK(runs == report.results.runs.size());
  json const& layer = parsed["variants"][2];
  CHECK(layer["learning_rate"] == 1e-3);
  CHECK(layer["layer"] == 0);
  CHECK(layer["contribution_interval"][1].get<double>() == report.contributions[2].confidence.high);
  CHECK(layer["contribution_by_base"].size() == 2);
  CHECK(parsed["variants"][0]["learning_rate"].is_null());
  CHECK(parsed["variants"][0]["layer"].is_null());
  CHECK(parsed["variants"][0]["contribution_interval"][0].is_null());
  CHECK(parsed["gain"]["mean"].get<double>() == report.profile.scale.gain());
  CHECK(parsed["best_layer"]["layer"] == 3);
  CHECK(parsed["measurable"] == true);
  CHECK(parsed["refusal"].is_null());
  CHECK(parsed["lamina_version"] == lamina::version);
  CHECK(parsed["seeds"] == json({1, 2, 3}));
  CHECK(parsed["settings"][0]["key"] == "task");
  CHECK(parsed["sweep_settings"] == "synthetic; steps=60");
  CHECK(parsed["notes"][0] == "A note of the program.");
  CHECK(parsed["contributions_by_layer"].size() == 4);
}

TEST_CASE("JSON keeps the order of its keys") {
  auto const parsed = nlohmann::ordered_json::parse(json_report(synthetic_report()));
  std::vector<std::string> keys;
  for (auto const& item : parsed.items()) keys.push_back(item.key());
  CHECK(keys == std::vector<std::string>{"format",     "format_version", "lamina_version",
                                         "title",      "settings",       "sweep_settings",
                                         "bases",      "seeds",          "interval",
                                         "base_score", "full_score",     "gain",
                                         "measurable", "refusal",        "contributions_by_layer",
                                         "best_layer", "rank_agreement", "variants",
                                         "caveats",    "notes"});
}

TEST_CASE("JSON of a refused profile has null contributions and the reason") {
  json const parsed = json::parse(json_report(refused_report()));
  CHECK(parsed["measurable"] == false);
  CHECK(parsed["refusal"].get<std::string>().find("S_full - S_base is") != std::string::npos);
  CHECK(parsed["best_layer"].is_null());
  for (json const& value : parsed["contributions_by_layer"]) CHECK(value.is_null());
  CHECK(parsed["variants"][2]["contribution"].is_null());
  CHECK(parsed["variants"][2]["score"].is_number());
}

TEST_CASE("JSON carries hostile text unchanged, but for what is no text") {
  std::string expected = lamina::testing::hostile_text;
  expected.replace(expected.find('\x01'), 1, "\xEF\xBF\xBD");
  expected.replace(expected.find('\xff'), 1, "\xEF\xBF\xBD");
  json const parsed = json::parse(json_report(hostile_report()));
  CHECK(parsed["title"] == expected);
  CHECK(parsed["settings"][0]["value"] == expected);
  CHECK(parsed["variants"][2]["name"] == "layer:0" + expected);
  CHECK(parsed["variants"][2]["runs"][0]["extras"].contains(expected));
}

TEST_CASE("JSON numbers that are not finite are null") {
  auto report = synthetic_report();
  report.results.runs[0].extras = {{"inf", std::numeric_limits<double>::infinity()},
                                   {"nan", lamina::not_a_number},
                                   {"tiny", 5e-324}};
  json const parsed = json::parse(json_report(report));
  json const& extras = parsed["variants"][0]["runs"][0]["extras"];
  CHECK(extras["inf"].is_null());
  CHECK(extras["nan"].is_null());
  CHECK(extras["tiny"].get<double>() == 5e-324);
}

TEST_CASE("UTF-8: what is valid stays, every kind of invalid byte is replaced") {
  auto const quoted = [](std::string_view text) { return lamina::detail::quote_json(text); };
  std::string const replaced = "\xEF\xBF\xBD";
  CHECK(quoted("\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x99\x82") ==
        "\"\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x99\x82\"");
  CHECK(quoted("\xC3") == "\"" + replaced + "\"");                 // cut
  CHECK(quoted("\x80") == "\"" + replaced + "\"");                 // continuation alone
  CHECK(quoted("\xC0\xAF") == "\"" + replaced + replaced + "\"");  // overlong slash
  CHECK(quoted("\xE0\x80\x80") == "\"" + replaced + replaced + replaced + "\"");
  CHECK(quoted("\xED\xA0\x80") == "\"" + replaced + replaced + replaced + "\"");  // surrogate
  CHECK(quoted("\xF4\x90\x80\x80").size() == 2 + 4 * 3);                          // > U+10FFFF
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      std::string const text{static_cast<char>(first), static_cast<char>(second), 'x'};
      CHECK(json::accept(quoted(text)));
    }
  }
}

TEST_CASE("JSON does not depend on the locale") {
  auto const both = [] { return json_report(synthetic_report()) + json_report(refused_report()); };
  std::string const before = both();
  char const* const locale = std::setlocale(LC_ALL, "de_DE.UTF-8");
  std::string const after = both();
  std::setlocale(LC_ALL, "C");
  if (locale == nullptr) MESSAGE("no de_DE.UTF-8 locale here; compared in the present one");
  CHECK(before == after);
}
