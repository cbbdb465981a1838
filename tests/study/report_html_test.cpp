// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/report_html.hpp"

#include <doctest/doctest.h>

#include "tests/support/markup.hpp"
#include "tests/support/synthetic_sweep.hpp"

using lamina::html_report;
using lamina::testing::hostile_report;
using lamina::testing::markup;
using lamina::testing::read_markup;
using lamina::testing::refused_report;
using lamina::testing::synthetic_report;

namespace {

markup read_page(std::string const& html) { return read_markup(html, {"meta"}); }

}  // namespace

TEST_CASE("HTML: one page with both pictures, all tables and every single score") {
  auto const report = synthetic_report(6);
  std::string const html = html_report(report);
  markup const page = read_page(html);
  CHECK(page.error == "");
  CHECK(page.count("svg") == 2);
  CHECK(page.count("table") == 4);
  CHECK(page.count("details") == 1);
  // Rows: six layers, four others, provenance (two settings and five of our own), every run, and
  // four headers.
  std::size_t const expected = 6 + 4 + 7 + report.results.runs.size() + 4;
  CHECK(page.count("tr") == static_cast<int>(expected));
  CHECK(html.find("<td>layer:1</td><td>layer 1</td><td class=\"number\">0.001</td>"
                  "<td class=\"number\">60</td>") != std::string::npos);
  CHECK(html.find("<tr class=\"best\"><td>layer:5</td>") != std::string::npos);
  CHECK(html.find("made up") != std::string::npos);
  CHECK(html.find("A note of the program.") != std::string::npos);
}

TEST_CASE("HTML needs nothing from outside and runs nothing") {
  for (auto const& report : {synthetic_report(), hostile_report()}) {
    std::string const html = html_report(report);
    markup const page = read_page(html);
    for (char const* element : {"script", "link", "img", "iframe", "object", "image", "use", "a"}) {
      CAPTURE(element);
      CHECK(page.count(element) == 0);
    }
    for (char const* outside : {"url(", "@import", "src=", "href=", "https://"}) {
      CAPTURE(outside);
      CHECK(html.find(outside) == std::string::npos);
    }
  }
}

TEST_CASE("HTML: a hostile title, name or setting is text and nothing else") {
  markup const plain = read_page(html_report(synthetic_report(3)));
  std::string const html = html_report(hostile_report());
  markup const page = read_page(html);
  CHECK(page.error == "");
  CHECK(html.find("<script>") == std::string::npos);
  CHECK(html.find("&lt;/title&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; "
                  "&#39;quoted&#39;") != std::string::npos);
  CHECK(page.count("title") == plain.count("title"));
  CHECK(page.count("table") == plain.count("table"));
}

TEST_CASE("HTML: a refused profile has no best layer, one picture, and the reason") {
  std::string const html = html_report(refused_report());
  markup const page = read_page(html);
  CHECK(page.error == "");
  CHECK(page.count("svg") == 1);
  CHECK(html.find("No layer contribution is given: S_full - S_base is") != std::string::npos);
  CHECK(html.find("best single layer") == std::string::npos);
}

TEST_CASE("HTML: several bases are said and drawn") {
  std::string const html = html_report(synthetic_report(4, 3));
  CHECK(read_page(html).error == "");
  CHECK(html.find("one dot a base (3)") != std::string::npos);
  CHECK(html.find("<td>bases</td><td>3</td>") != std::string::npos);
}
