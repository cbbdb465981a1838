// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/report_svg.hpp"

#include <doctest/doctest.h>

#include "tests/support/markup.hpp"
#include "tests/support/synthetic_sweep.hpp"

using lamina::svg_profile;
using lamina::svg_selections;
using lamina::testing::hostile_report;
using lamina::testing::markup;
using lamina::testing::read_markup;
using lamina::testing::refused_report;
using lamina::testing::synthetic_report;

namespace {

bool has_text(markup const& svg, std::string const& text) {
  for (std::string const& words : svg.texts) {
    if (words.find(text) != std::string::npos) return true;
  }
  return false;
}

// The numbers of one attribute over all elements that contain `look`.
std::vector<double> attribute(std::string const& svg, std::string const& look,
                              std::string const& name) {
  std::vector<double> values;
  for (std::size_t at = 0; (at = svg.find(look, at)) != std::string::npos; at += look.size()) {
    std::size_t const element = svg.rfind('<', at);
    std::size_t const begin = svg.find(' ' + name + "=\"", element) + name.size() + 3;
    double value = 0;
    REQUIRE(lamina::parse_number(std::string_view(svg).substr(begin, svg.find('"', begin) - begin),
                                 value));
    values.push_back(value);
  }
  return values;
}

}  // namespace

TEST_CASE("SVG is well-formed: any layers, bases, refusal, hostile text") {
  for (auto const& report : {synthetic_report(1), synthetic_report(6), synthetic_report(36, 2),
                             synthetic_report(120), refused_report(), hostile_report()}) {
    CHECK(read_markup(svg_profile(report)).error == "");
    CHECK(read_markup(svg_selections(report)).error == "");
  }
}

TEST_CASE("the reader of the markup finds what is broken") {
  for (char const* broken :
       {"<svg><g></svg>", "<svg>a & b</svg>", "<svg x=1></svg>", "<svg x=\"1\" x=\"2\"/>", "<svg",
        "</svg>", "<svg>", "<svg x=\"<\"></svg>", "<svg>\x01</svg>", "<svg a=\"b\"c=\"d\"/>"}) {
    CAPTURE(broken);
    CHECK(read_markup(broken).error != "");
  }
  CHECK(read_markup("<svg a=\"b\"><g/>a &amp; b</svg>").error == "");
}

TEST_CASE("profile: one bar a layer, as high as its C, one dot a run, whiskers, both lines") {
  auto const report = synthetic_report(6);
  std::string const text = svg_profile(report);
  markup const svg = read_markup(text);
  CHECK(svg.count("rect") == 1 + 6);
  CHECK(svg.count("circle") == 6 * 3);
  CHECK(has_text(svg, "full training"));
  CHECK(has_text(svg, "untrained"));
  CHECK(has_text(svg, "decoder layer"));
  CHECK(has_text(svg, "single layer: learning rate 0.001, 60 steps"));
  CHECK(has_text(svg, "full training: learning rate 3e-4, 60 steps"));
  auto const heights = attribute(text, "class=\"bar", "height");
  auto const zero = attribute(text, "class=\"reference\"", "y1");
  auto const one = attribute(text, "class=\"reference dashed\"", "y1");
  REQUIRE(heights.size() == 6);
  REQUIRE(zero.size() == 1);
  REQUIRE(one.size() == 1);
  for (std::size_t layer = 0; layer < 6; ++layer) {
    CHECK(heights[layer] / (zero[0] - one[0]) ==
          doctest::Approx(report.profile.layers[layer].value).epsilon(0.002));
  }
  auto const whiskers = attribute(text, "class=\"whisker\"", "y1");
  CHECK(whiskers.size() == 6 * 3);  // the line and two caps
  CHECK(text.find("class=\"bar best\"") != std::string::npos);
}

TEST_CASE("profile: an unmeasured layer has a place and no bar") {
  auto const report = lamina::make_report("t", {}, lamina::testing::synthetic_results(3), 8);
  markup const svg = read_markup(svg_profile(report));
  CHECK(svg.error == "");
  CHECK(svg.count("rect") == 1 + 3);
  CHECK(has_text(svg, "7"));
}

TEST_CASE("profile: where C is refused it shows scores and the reason") {
  markup const svg = read_markup(svg_profile(refused_report()));
  CHECK(has_text(svg, "Score by layer (no contribution is given)"));
  CHECK(has_text(svg, "S_full - S_base is"));
  CHECK(svg_selections(refused_report()).empty());
}

TEST_CASE("selections: each with its name, budget, C and interval; controls look different") {
  auto const report = synthetic_report();
  std::string const text = svg_selections(report);
  markup const svg = read_markup(text);
  CHECK(svg.count("rect") == 1 + 3);  // best layer, one selection, one control
  CHECK(has_text(svg, "best single layer"));
  CHECK(has_text(svg, "last:2"));
  CHECK(has_text(svg, "the last two layers"));
  CHECK(has_text(svg, "learning rate 3e-4, 60 steps"));
  CHECK(has_text(svg, "shuffled"));
  CHECK(text.find("class=\"bar control\"") != std::string::npos);
}

TEST_CASE("selections: nothing to compare, no picture") {
  auto results = lamina::testing::synthetic_results(2);
  auto& variants = results.plan.variants;
  variants.resize(4);
  while (results.runs.back().variant > 3) results.runs.pop_back();
  CHECK(svg_selections(lamina::make_report("t", {}, results, 2)).empty());
}

TEST_CASE("an interval beyond all reason is cut at the edge and does not flatten the bars") {
  std::vector<lamina::detail::chart_bar> bars(2);
  bars[0].value = 0.5;
  bars[0].range = {-40, 60};
  bars[1].value = 0.8;
  auto const axis = lamina::detail::axis_over(bars, 0, 1);
  CHECK(axis.low >= -1);
  CHECK(axis.high <= 2);
  CHECK(axis.low <= 0);
  CHECK(axis.high >= 1);
}

TEST_CASE("axes: ticks are round and cover everything, for any range") {
  lamina::counter_generator generator(3);
  for (int i = 0; i < 500; ++i) {
    double const scale = std::pow(10.0, 8 * generator.uniform() - 4);
    std::vector<lamina::detail::chart_bar> bars(1);
    bars[0].value = scale * (2 * generator.uniform() - 0.5);
    auto const axis = lamina::detail::axis_over(bars, 0, scale);
    CHECK(axis.low <= (std::min)(0.0, bars[0].value) + 1e-6 * scale);
    CHECK(axis.high >= (std::max)(scale, bars[0].value) - 1e-6 * scale);
    double const ticks = (axis.high - axis.low) / axis.step;
    CHECK(ticks == doctest::Approx(std::round(ticks)).epsilon(1e-9));
    CHECK(ticks >= 3);
    CHECK(ticks <= 9);
  }
}

TEST_CASE("text is cut and wrapped by characters, not bytes") {
  using lamina::detail::shortened;
  using lamina::detail::wrapped;
  CHECK(shortened("short", 5) == "short");
  CHECK(shortened("\xC3\xA9\xC3\xA9\xC3\xA9", 3) == "\xC3\xA9\xC3\xA9\xC3\xA9");
  CHECK(shortened("\xC3\xA9\xC3\xA9\xC3\xA9", 2) == "\xC3\xA9\xE2\x80\xA6");
  CHECK(wrapped("aa bb cc", 5) == std::vector<std::string>{"aa bb", "cc"});
  CHECK(wrapped("", 5).empty());
  CHECK(wrapped("aaaaaaaa b", 4) == std::vector<std::string>{"aaa\xE2\x80\xA6", "b"});
}
