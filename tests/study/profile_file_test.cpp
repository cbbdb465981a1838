// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/profile_file.hpp"

#include <doctest/doctest.h>

#include <fstream>

#include "lamina/layers/tensor_selection_text.hpp"
#include "lamina/study/report_json.hpp"
#include "tests/support/synthetic_sweep.hpp"
#include "tests/support/temporary_directory.hpp"

using namespace lamina;
using lamina::testing::synthetic_report;

namespace {

std::string file_with(testing::temporary_directory const& directory, std::string const& text) {
  std::string const path = directory / "profile.json";
  std::ofstream(path) << text;
  return path;
}

}  // namespace

TEST_CASE("read_contributions: every digit that the report's JSON holds") {
  testing::temporary_directory const directory;
  auto const report = synthetic_report(4, 2);
  std::string const path = file_with(directory, json_report(report));
  CHECK(read_contributions(path) == report.profile.contributions_by_layer());
}

TEST_CASE("profile_files: a selection takes the best layers of a file") {
  testing::temporary_directory const directory;
  std::string const path =
      file_with(directory, R"({"contributions_by_layer": [0.25, null, 1.5, -1e-3]})");
  CHECK(to_text(parse_selection("top:2@" + path + ":mlp", 4, {}, profile_files{})) ==
        "0:mlp,2:mlp");
  CHECK(to_text(parse_selection("worst:1@" + path, 4, {}, profile_files{})) == "3");
  CHECK_THROWS_AS(parse_selection("top:1@" + path, 5, {}, profile_files{}), selection_error);
  CHECK_THROWS_AS(parse_selection("top:1", 4, {}, profile_files{}), selection_error);
  CHECK_THROWS_AS(parse_selection("top:1@" + (directory / "none"), 4, {}, profile_files{}),
                  io_error);
}

TEST_CASE("read_contributions: what is no report is refused with file and place") {
  testing::temporary_directory const directory;
  auto const message_of = [&](std::string const& text) {
    std::string const path = file_with(directory, text);
    try {
      read_contributions(path);
    } catch (format_error const& problem) {
      std::string const message = problem.what();
      CHECK(message.find(path) != std::string::npos);
      return message.substr(message.find(path) + path.size());
    }
    return std::string("no error");
  };
  CHECK(message_of("{}") == "': $ has no member \"contributions_by_layer\"");
  CHECK(message_of(R"({"contributions_by_layer": []})") ==
        "': $.contributions_by_layer has 0 layers, expected 1..512");
  CHECK(message_of(R"({"contributions_by_layer": [1, "x"]})") ==
        "': $.contributions_by_layer[1] is \"x\", expected a number");
  CHECK(message_of(R"({"contributions_by_layer": 3})") ==
        "': $.contributions_by_layer is 3, expected an array");
  CHECK(message_of("{\"contributions_by_layer\": [1,").find("is not JSON") != std::string::npos);
}
