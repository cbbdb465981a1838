// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/io/json.hpp"

#include <doctest/doctest.h>

using lamina::json_view;
using lamina::parse_json;

namespace {

std::string error_of(std::string_view text) {
  try {
    parse_json(text, "file");
  } catch (lamina::format_error const& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a JSON text becomes the document that nlohmann/json itself makes of it") {
  for (std::string_view text :
       {R"({"a": [1, -2, 3.5, true, null, "x\u00e9\n"], "b": {"c": {}, "d": []}, "": ""})", "[]",
        "7", "-9223372036854775808", "18446744073709551615", "\"text\"", " [[[0]]] ", "1e308"}) {
    CAPTURE(text);
    CHECK(parse_json(text, "file") == nlohmann::json::parse(text));
  }
}

TEST_CASE("what breaks the grammar is an error that names the source and the byte") {
  CHECK(error_of("") ==
        "parse_json: 'file' is not JSON at byte 1: parse error at line 1, column 1: syntax error "
        "while parsing value - unexpected end of input; expected '[', '{', or a literal");
  for (std::string_view text :
       {"{", "[1,]", "{\"a\":1,}", "nul", "1 2", "{\"a\" 1}", "'a'", "+1", "\"\xff\"",
        "\"\xc0\x80\"", "\"\\ud800\"", "// x\n1", "NaN", "01"}) {
    CAPTURE(text);
    CHECK(error_of(text).starts_with("parse_json: 'file' is not JSON at byte "));
  }
  CHECK(error_of("1e999").find("number overflow parsing '1e999'") != std::string::npos);
  CHECK(error_of(std::string(100000, 'x')).size() < 300);
}

TEST_CASE("names that stand twice and texts that are nested too deep are refused") {
  CHECK(error_of(R"({"a": 1, "b": {"a": 1, "a": 2}})") ==
        "parse_json: 'file' has the name \"a\" twice");
  std::string const deep = std::string(64, '[') + std::string(64, ']');
  CHECK(error_of(deep).empty());
  CHECK(error_of("[" + deep + "]") == "parse_json: 'file' is nested deeper than 64 levels");
  CHECK(error_of(std::string(1'000'000, '[')) ==
        "parse_json: 'file' is nested deeper than 64 levels");
  CHECK_THROWS_AS(parse_json("[[0]]", "file", 1), lamina::format_error);
  CHECK_NOTHROW(parse_json("[0]", "file", 1));
}

TEST_CASE("accessors give what is there") {
  auto const document = parse_json(
      R"({"n": 3, "x": 0.5, "t": "text", "yes": true, "none": null, "l": [1, [2]]})", "f");
  json_view const view(document, "f");
  CHECK(view.at("n").integer() == 3);
  CHECK(view.at("n").integer(3, 3) == 3);
  CHECK(view.at("n").number() == 3.0);
  CHECK(view.at("x").number() == 0.5);
  CHECK(view.at("t").text() == "text");
  CHECK(view.at("yes").boolean());
  CHECK(view.at("l").array().size() == 2);
  CHECK(view.at("l").at(1).at(lamina::index_t{0}).integer() == 2);
  CHECK(view.object().size() == 6);
  CHECK_FALSE(view.find("none"));
  CHECK_FALSE(view.find("absent"));
  CHECK(view.find("t")->text() == "text");
}

TEST_CASE("a value that is not as expected is an error that says where it is and what it is") {
  auto const document = parse_json(
      R"({"rope": {"theta": "ten\u0007", "list": [1, 2]}, "big": 9223372036854775808, "x": 1.5})",
      "c.json");
  json_view const view(document, "c.json");
  json_view const rope = view.at("rope");
  CHECK_THROWS_WITH_AS(rope.at("theta").number(),
                       "'c.json': $.rope.theta is \"ten\\u0007\", expected a number",
                       lamina::format_error);
  CHECK_THROWS_WITH_AS(rope.at("factor"), "'c.json': $.rope has no member \"factor\"",
                       lamina::format_error);
  CHECK_THROWS_WITH_AS(rope.at("list").at(1).text(),
                       "'c.json': $.rope.list[1] is 2, expected a text", lamina::format_error);
  CHECK_THROWS_WITH_AS(rope.at("list").at(2),
                       "'c.json': $.rope.list has 2 elements, expected one at 2",
                       lamina::format_error);
  CHECK_THROWS_WITH_AS(rope.at("list").at(1).integer(0, 1),
                       "'c.json': $.rope.list[1] is 2, expected an integer in [0, 1]",
                       lamina::format_error);
  CHECK_THROWS_WITH_AS(rope.text(), "'c.json': $.rope is an object of 2, expected a text",
                       lamina::format_error);
  CHECK_THROWS_WITH_AS(view.at("big").integer(),
                       doctest::Contains("is 9223372036854775808, expected an integer"),
                       lamina::format_error);
  CHECK_THROWS_WITH_AS(view.at("x").integer(), doctest::Contains("is 1.5, expected an integer"),
                       lamina::format_error);
  CHECK_THROWS_WITH_AS(view.at(std::string(200, 'x')),
                       ("'c.json': $ has no member \"" + std::string(100, 'x') + "\"").c_str(),
                       lamina::format_error);
  CHECK_THROWS_AS(view.array(), lamina::format_error);
  CHECK_THROWS_AS(view.at("x").object(), lamina::format_error);
  CHECK_THROWS_AS(view.at("x").boolean(), lamina::format_error);
}
