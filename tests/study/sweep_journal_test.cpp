// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/sweep_journal.hpp"

#include <doctest/doctest.h>

#include <fstream>

#include "tests/support/temporary_directory.hpp"

using lamina::index_t;
using lamina::run_result;
using lamina::sweep_journal;
using lamina::sweep_variant;
using lamina::variant_kind;
using lamina::testing::temporary_directory;

namespace {

std::string const settings = "task=math\nsteps=60; note=\ttabs";

sweep_variant layer_variant() {
  return {.name = "layer:3",
          .kind = variant_kind::layer,
          .layer = 3,
          .trained = "layer 3",
          .learning_rate = 3e-4,
          .steps = 60};
}

run_result result_of(std::uint64_t seed, double score) {
  return {.base = 0,
          .variant = 2,
          .seed = seed,
          .score = score,
          .extras = {{"greedy\tand more", 1.0 / 3}, {"nan", lamina::not_a_number}},
          .seconds = 1.5};
}

// A journal with two runs; returns its bytes.
std::string write_two(std::string const& path) {
  sweep_journal journal(path, false, settings);
  journal.append(layer_variant(), result_of(1, 0.1));
  journal.append(layer_variant(), result_of(2, 2.0 / 3));
  return lamina::read_file(path);
}

void overwrite(std::string const& path, std::string const& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

void refused(std::string const& path, std::string const& what) {
  std::string const text = "run_sweep: journal '" + path + "' " + what;
  CHECK_THROWS_WITH_AS(sweep_journal(path, true, settings), text.c_str(), lamina::format_error);
}

// The line with its checksum made right again after a change.
std::string resealed(std::string const& content, std::size_t line, std::size_t field,
                     std::string const& value) {
  std::string result;
  std::size_t begin = 0;
  for (std::size_t number = 0; begin < content.size(); ++number) {
    std::size_t const end = content.find('\n', begin);
    std::vector<std::string> fields;
    REQUIRE(lamina::decode_record(std::string_view(content).substr(begin, end - begin), fields));
    if (number == line) fields.at(field) = value;
    result += lamina::encode_record(fields);
    begin = end + 1;
  }
  return result;
}

}  // namespace

TEST_CASE("a journal gives back every run bit for bit, under the index of the present plan") {
  temporary_directory const directory;
  write_two(directory / "journal");
  sweep_journal const journal(directory / "journal", true, settings);
  run_result found{.base = 0, .variant = 5, .seed = 2, .score = 0, .extras = {}, .seconds = 0};
  REQUIRE(journal.find(layer_variant(), found));
  CHECK(found.variant == 5);
  CHECK(found.score == 2.0 / 3);
  CHECK(found.seconds == 1.5);
  REQUIRE(found.extras.size() == 2);
  CHECK(found.extras[0] == lamina::named_number{"greedy\tand more", 1.0 / 3});
  CHECK(lamina::is_nan(found.extras[1].value));

  run_result absent{.base = 0, .variant = 5, .seed = 3, .score = 0, .extras = {}, .seconds = 0};
  CHECK_FALSE(journal.find(layer_variant(), absent));
  absent = {.base = 1, .variant = 5, .seed = 1, .score = 0, .extras = {}, .seconds = 0};
  CHECK_FALSE(journal.find(layer_variant(), absent));
}

TEST_CASE("a journal cut at any byte of its last line loses that run only") {
  temporary_directory const directory;
  std::string const path = directory / "journal";
  std::string const whole = write_two(path);
  std::size_t const last = whole.rfind('\n', whole.size() - 2) + 1;
  for (std::size_t size = last; size < whole.size(); size += 5) {
    overwrite(path, whole.substr(0, size));
    {
      sweep_journal journal(path, true, settings);
      run_result first = result_of(1, 0), second = result_of(2, 0);
      CHECK(journal.find(layer_variant(), first));
      CHECK_FALSE(journal.find(layer_variant(), second));
      journal.append(layer_variant(), result_of(2, 2.0 / 3));
    }
    REQUIRE(lamina::read_file(path) == whole);
  }
}

TEST_CASE("a journal killed inside its first line starts again") {
  temporary_directory const directory;
  std::string const path = directory / "journal";
  std::string const whole = write_two(path);
  std::size_t const header = whole.find('\n');
  for (std::size_t size : {std::size_t{0}, std::size_t{5}, std::size_t{30}, header}) {
    for (bool resume : {false, true}) {
      overwrite(path, whole.substr(0, size));
      sweep_journal const journal(path, resume, settings);
      CHECK(lamina::read_file(path) == whole.substr(0, header + 1));
    }
  }
}

TEST_CASE("a journal without runs is started anew for other settings, unless it is resumed") {
  temporary_directory const directory;
  std::string const path = directory / "journal";
  { sweep_journal const journal(path, false, "old settings"); }
  CHECK_THROWS_WITH_AS(sweep_journal(path, true, settings), doctest::Contains("other settings"),
                       lamina::format_error);
  { sweep_journal const journal(path, false, settings); }
  CHECK_NOTHROW(sweep_journal(path, true, settings));
}

TEST_CASE("a journal with any one byte changed is refused, by file and line") {
  temporary_directory const directory;
  std::string const path = directory / "journal";
  std::string const whole = write_two(path);
  for (std::size_t at = 0; at + 1 < whole.size(); at += 3) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 4);
    overwrite(path, changed);
    CAPTURE(at);
    CHECK_THROWS_AS(sweep_journal(path, true, settings), lamina::format_error);
    CHECK(lamina::read_file(path) == changed);  // evidence is left alone
  }
  std::string changed = whole;
  changed[whole.size() - 30] ^= 1;
  overwrite(path, changed);
  refused(path, "line 3: the checksum does not match the line");
  std::size_t const second = whole.find('\n') + 1;
  changed = whole;
  changed[second + 2] ^= 1;
  overwrite(path, changed);
  refused(path, "line 2: the checksum does not match the line");
}

TEST_CASE("a journal of other settings, format or lamina is refused with both values") {
  temporary_directory const directory;
  std::string const path = directory / "journal";
  std::string const whole = write_two(path);
  CHECK_THROWS_WITH_AS(
      sweep_journal(path, true, "task=math\nsteps=90; note=\ttabs"),
      ("run_sweep: journal '" + path +
       "' line 1: other settings: the journal has \"task=math\nsteps=60; note=\ttabs\", this sweep "
       "has \"task=math\nsteps=90; note=\ttabs\" (they part at character 16)")
          .c_str(),
      lamina::format_error);
  CHECK_THROWS_WITH_AS(sweep_journal(path, true, settings + "; more"),
                       doctest::Contains("they part at character 30"), lamina::format_error);
  overwrite(path, resealed(whole, 0, 1, "2"));
  refused(path, "line 1: format version is '2', expected '1'");
  overwrite(path, resealed(whole, 0, 2, "0.0.9"));
  refused(path, "line 1: written by lamina 0.0.9, this is lamina " + std::string(lamina::version) +
                    "; results of different versions cannot be mixed");
}

TEST_CASE("a journal with sealed nonsense in a line is refused by field") {
  temporary_directory const directory;
  std::string const path = directory / "journal";
  std::string const whole = write_two(path);
  overwrite(path, resealed(whole, 2, 5, "0.1x"));
  refused(path, "line 3: score is '0.1x', expected a number");
  overwrite(path, resealed(whole, 1, 3, "-1"));
  refused(path, "line 2: seed is '-1', expected a number");
  overwrite(path, resealed(whole, 2, 3, "1"));
  refused(path, "line 3: the run is already in line 2");
  overwrite(path, resealed(whole, 2, 0, "walk"));
  refused(path, "line 3: has 11 fields, expected 'run', 6 more, and pairs");
}

TEST_CASE("a run made by another definition of its variant is refused") {
  temporary_directory const directory;
  write_two(directory / "journal");
  sweep_journal const journal(directory / "journal", true, settings);
  sweep_variant changed = layer_variant();
  changed.learning_rate = 1e-3;
  run_result run = result_of(2, 0);
  CHECK_THROWS_WITH_AS(
      journal.find(changed, run),
      ("run_sweep: journal '" + (directory / "journal") +
       "' line 3: variant 'layer:3' was run as \"layer, layer 3, trains 'layer 3', learning rate "
       "3e-04, 60 steps, notes ''\", this sweep has \"layer, layer 3, trains 'layer 3', learning "
       "rate 0.001, 60 steps, notes ''\"")
          .c_str(),
      lamina::format_error);
}

TEST_CASE("a file that is not a journal is left alone") {
  temporary_directory const directory;
  std::string const path = directory / "thesis";
  for (char const* content : {"my thesis, one line", "my thesis\nof two lines\n"}) {
    overwrite(path, content);
    refused(path, "line 1: this is not a sweep journal; expected 'lamina sweep journal'");
    CHECK(lamina::read_file(path) == content);
  }
}

TEST_CASE("a journal with runs is not taken up unasked, nor by two at once") {
  temporary_directory const directory;
  std::string const path = directory / "journal";
  std::string const whole = write_two(path);
  CHECK_THROWS_WITH_AS(sweep_journal(path, false, settings),
                       ("run_sweep: journal '" + path +
                        "' holds finished runs; resume the sweep to go on with them, or remove "
                        "the file to start anew")
                           .c_str(),
                       lamina::config_error);
  CHECK(lamina::read_file(path) == whole);
  sweep_journal const holder(path, true, settings);
  CHECK_THROWS_WITH_AS(sweep_journal(path, true, settings),
                       doctest::Contains("is being written by another process"), lamina::io_error);
}

namespace {

lamina::sweep_plan two_bases() {
  lamina::sweep_plan plan{.variants = {{.name = "base", .kind = variant_kind::base},
                                       {.name = "full", .kind = variant_kind::full},
                                       layer_variant()},
                          .bases = 2,
                          .seeds = {1, 2, 3},
                          .settings = settings};
  return plan;
}

// A journal with the given runs, {variant, base, seed}; the score tells them apart.
struct made_run {
  std::size_t variant;
  index_t base;
  std::uint64_t seed;
};
void write_runs(std::string const& path, std::vector<made_run> const& runs) {
  auto const plan = two_bases();
  sweep_journal journal(path, false, settings);
  for (auto const& [variant, base, seed] : runs) {
    journal.append(plan.variants[variant],
                   {.base = base,
                    .variant = static_cast<index_t>(variant),
                    .seed = seed,
                    .score = double(100 * variant + 10 * static_cast<std::size_t>(base) + seed),
                    .extras = {}});
  }
}

}  // namespace

TEST_CASE("finished_runs: what a journal has by now, while another process may write it") {
  temporary_directory const directory;
  std::string const path = directory / "journal";
  write_runs(path, {{2, 1, 1}, {0, 0, 0}, {2, 0, 2}, {0, 1, 0}, {2, 0, 1}, {2, 1, 3}, {1, 0, 1}});
  sweep_journal const held(path, true, settings);
  auto const found = lamina::read_finished_runs(two_bases(), path);
  // Full training is finished on one base only. Of the layer, seed 1 is there on both bases; seed 2
  // is missing on the second, and what follows is left out with it.
  REQUIRE(found.results.plan.variants.size() == 2);
  CHECK(found.results.plan.variants[0].name == "base");
  CHECK(found.results.plan.variants[1].name == "layer:3");
  CHECK(found.results.scores(0) == lamina::score_table{{0}, {10}});
  CHECK(found.results.scores(1) == lamina::score_table{{201}, {211}});
  CHECK(found.finished == 4);
  CHECK(found.total == 2 + 6 + 6);
  CHECK_FALSE(found.complete());
}

TEST_CASE("finished_runs: all of a finished sweep is all that run_sweep returns") {
  temporary_directory const directory;
  std::string const path = directory / "journal";
  std::vector<made_run> runs{{0, 0, 0}, {0, 1, 0}};
  for (std::size_t const variant : {std::size_t{2}, std::size_t{1}}) {
    for (std::uint64_t const seed : {3u, 1u, 2u}) {
      for (index_t const base : {1, 0}) runs.push_back({variant, base, seed});
    }
  }
  write_runs(path, runs);
  auto const found = lamina::read_finished_runs(two_bases(), path);
  CHECK(found.complete());
  CHECK(found.finished == 14);
  CHECK(found.results.scores(1) == lamina::score_table{{101, 102, 103}, {111, 112, 113}});
  CHECK(found.results.scores(2) == lamina::score_table{{201, 202, 203}, {211, 212, 213}});
}

TEST_CASE("finished_runs: a line that is being written is not there yet, damage is an error") {
  temporary_directory const directory;
  std::string const path = directory / "journal";
  write_runs(path, {{0, 0, 0}, {0, 1, 0}});
  std::string const whole = lamina::read_file(path);
  overwrite(path, whole.substr(0, whole.size() - 5));
  CHECK(lamina::read_finished_runs(two_bases(), path).results.plan.variants.empty());
  CHECK(lamina::read_file(path).size() == whole.size() - 5);

  auto const plan = two_bases();
  auto const refusal = [&](std::string const& content) {
    overwrite(path, content);
    CHECK_THROWS_AS(lamina::read_finished_runs(plan, path), lamina::format_error);
  };
  refusal("");
  refusal("mine\n");
  refusal(whole.substr(0, 30));
  std::string flipped = whole;
  flipped[whole.size() - 30] ^= 1;
  refusal(flipped);
  CHECK_THROWS_AS(lamina::read_finished_runs(plan, directory / "none"), lamina::io_error);
}
