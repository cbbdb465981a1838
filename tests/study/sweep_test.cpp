// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/sweep.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <set>
#include <thread>

#include "lamina/study/report_html.hpp"
#include "lamina/study/report_json.hpp"
#include "lamina/study/report_table.hpp"
#include "tests/support/synthetic_sweep.hpp"
#include "tests/support/temporary_directory.hpp"
#include "tests/support/threaded_lanes.hpp"

using lamina::index_t;
using lamina::run_sweep;
using lamina::serial_for;
using lamina::sweep_plan;
using lamina::sweep_progress;
using lamina::sweep_results;
using lamina::sweep_run;
using lamina::testing::spawning_for;
using lamina::testing::synthetic_plan;
using lamina::testing::synthetic_scores;
using lamina::testing::temporary_directory;

namespace {

index_t const layers = 3;
index_t const total_runs = 1 + 5 + 5 * 3;

// Hands its ranges out backwards, so that nothing can lean on their order.
struct backward_for {
  template <class F>
  void operator()(index_t count, index_t, F&& f) const {
    for (index_t i = count; i-- > 0;) f(i, i + 1);
  }
};

// Everything a program writes from a sweep.
std::string all_reports(sweep_results const& results) {
  auto const report =
      lamina::make_report("kill test", {{"settings", results.plan.settings}}, results, layers);
  return lamina::json_report(report) + lamina::csv_report(report) +
         lamina::markdown_report(report) + lamina::html_report(report);
}

lamina::run_scores scores(sweep_run const& run) { return synthetic_scores(run, layers); }

std::string const& expected_reports() {
  static std::string const text =
      all_reports(run_sweep(synthetic_plan(layers), {}, serial_for{}, scores));
  return text;
}

}  // namespace

TEST_CASE("results are the same for any threads and any order of finishing") {
  sweep_plan const plan = synthetic_plan(layers);
  CHECK(all_reports(run_sweep(plan, {}, spawning_for{1}, scores)) == expected_reports());
  CHECK(all_reports(run_sweep(plan, {}, spawning_for{4}, scores)) == expected_reports());
  CHECK(all_reports(run_sweep(plan, {}, backward_for{}, scores)) == expected_reports());
}

TEST_CASE("every run is made once, with its base, seed and variant") {
  std::multiset<std::string> made;
  std::mutex mutex;
  sweep_plan const plan = synthetic_plan(layers, 2);
  auto const results = run_sweep(plan, {}, spawning_for{3}, [&](sweep_run const& run) {
    std::lock_guard<std::mutex> const lock(mutex);
    made.insert(run.name());
    return scores(run);
  });
  CHECK(made.size() == 2 * total_runs);
  CHECK(std::set<std::string>(made.begin(), made.end()).size() == made.size());
  CHECK(made.count("base 1, full, seed 5") == 1);
  CHECK(made.count("base 0, base, seed 0") == 1);
  CHECK(made.count("base 0, layer:0, seed 5") == 0);
  CHECK(results.runs.size() == made.size());
}

TEST_CASE("a thread with short runs takes more of them") {
  // The first run waits until all others are done: fixed halves would never get there.
  std::atomic<index_t> done{0};
  run_sweep(synthetic_plan(layers), {}, spawning_for{2}, [&](sweep_run const& run) {
    if (run.variant.name == "base") {
      while (done.load() < total_runs - 1) std::this_thread::yield();
    }
    ++done;
    return scores(run);
  });
  CHECK(done.load() == total_runs);
}

TEST_CASE("progress counts up to the total, one call at a time") {
  std::atomic<int> inside{0};
  std::vector<index_t> finished;
  double last_remaining = -1;
  run_sweep(synthetic_plan(layers), {}, spawning_for{4}, scores, [&](sweep_progress const& p) {
    CHECK(++inside == 1);
    finished.push_back(p.finished);
    CHECK(p.total == total_runs);
    CHECK(p.resumed == 0);
    CHECK((p.run == nullptr) == (p.finished == 0));
    if (p.run != nullptr) CHECK(p.result->score == scores(*p.run).score);
    CHECK(lamina::is_nan(p.remaining) == (p.finished == 0));
    CHECK(p.elapsed >= 0);
    last_remaining = p.remaining;
    --inside;
  });
  REQUIRE(finished.size() == total_runs + 1);
  for (index_t i = 0; i <= total_runs; ++i) CHECK(finished[static_cast<std::size_t>(i)] == i);
  CHECK(last_remaining == 0);
}

TEST_CASE("a later stage is a longer plan on the same journal") {
  temporary_directory const directory;
  lamina::sweep_options const first{.journal = directory / "journal"};
  lamina::sweep_options const later{.journal = directory / "journal", .resume = true};
  sweep_plan plan = synthetic_plan(layers);
  sweep_plan stage = plan;
  stage.variants.resize(5);  // base, full and the layers
  index_t made = 0;
  auto const counted = [&](sweep_run const& run) {
    ++made;
    return scores(run);
  };
  run_sweep(stage, first, serial_for{}, counted);
  CHECK(made == total_runs - 6);
  made = 0;
  index_t resumed = -1;
  auto const results = run_sweep(plan, later, serial_for{}, counted,
                                 [&](sweep_progress const& p) { resumed = p.resumed; });
  CHECK(made == 6);
  CHECK(resumed == total_runs - 6);
  CHECK(all_reports(results) == expected_reports());
  // And a shorter one: what it does not ask for stays in the journal.
  made = 0;
  CHECK(run_sweep(stage, later, serial_for{}, counted).runs.size() == total_runs - 6);
  run_sweep(plan, later, serial_for{}, counted);
  CHECK(made == 0);
}

TEST_CASE("a run that throws stops the sweep, keeps what is finished, and can be repeated") {
  temporary_directory const directory;
  std::string const journal = directory / "journal";
  sweep_plan const plan = synthetic_plan(layers);
  for (bool threaded : {false, true}) {
    std::atomic<index_t> made{0};
    auto const failing = [&](sweep_run const& run) {
      if (run.variant.name == "layer:1") throw std::runtime_error("out of memory");
      ++made;
      return scores(run);
    };
    lamina::sweep_options const options{.journal = journal, .resume = threaded};
    if (threaded) {
      CHECK_THROWS_WITH_AS(run_sweep(plan, options, spawning_for{3}, failing), "out of memory",
                           std::runtime_error);
    } else {
      CHECK_THROWS_WITH_AS(run_sweep(plan, options, serial_for{}, failing), "out of memory",
                           std::runtime_error);
      CHECK(made.load() == 9);  // base, five full, three of layer:0
    }
  }
  auto const results = run_sweep(plan, {.journal = journal, .resume = true}, serial_for{}, scores);
  CHECK(all_reports(results) == expected_reports());
}

TEST_CASE("progress that throws stops the sweep; the run it was told of is kept") {
  temporary_directory const directory;
  sweep_plan const plan = synthetic_plan(layers);
  CHECK_THROWS_WITH_AS(run_sweep(plan, {.journal = directory / "journal"}, serial_for{}, scores,
                                 [](sweep_progress const& p) {
                                   if (p.finished == 4) throw std::runtime_error("cancelled");
                                 }),
                       "cancelled", std::runtime_error);
  index_t resumed = 0;
  run_sweep(plan, {.journal = directory / "journal", .resume = true}, serial_for{}, scores,
            [&](sweep_progress const& p) { resumed = p.resumed; });
  CHECK(resumed == 4);
}

TEST_CASE("a score that is not a number, and an extra named twice, are errors that name the run") {
  sweep_plan const plan = synthetic_plan(layers);
  CHECK_THROWS_WITH_AS(
      run_sweep(plan, {}, serial_for{},
                [](sweep_run const& run) {
                  return lamina::run_scores{.score = run.seed == 2 ? lamina::not_a_number : 0.5};
                }),
      "run_sweep: the run (base 0, full, seed 2) has score nan, expected a finite number",
      lamina::measurement_error);
  CHECK_THROWS_WITH_AS(run_sweep(plan, {}, serial_for{},
                                 [](sweep_run const&) {
                                   return lamina::run_scores{0.5, {{"a", 1}, {"a", 2}}};
                                 }),
                       "run_sweep: the run (base 0, base, seed 0) reports 'a' twice",
                       lamina::config_error);
}

TEST_CASE("a journal with runs needs resume, and one that cannot be written is named") {
  temporary_directory const directory;
  lamina::sweep_options const options{.journal = directory / "journal"};
  run_sweep(synthetic_plan(1), options, serial_for{}, scores);
  CHECK_THROWS_WITH_AS(run_sweep(synthetic_plan(1), options, serial_for{}, scores),
                       doctest::Contains("resume the sweep to go on with them"),
                       lamina::config_error);
  CHECK_THROWS_WITH_AS(
      run_sweep(synthetic_plan(1), {.journal = directory / "no/journal"}, serial_for{}, scores),
      doctest::Contains("no/journal': No such file or directory"), lamina::io_error);
}

TEST_CASE("killed at twenty random moments and resumed, a sweep reports the same bytes") {
  temporary_directory const directory;
  std::string const journal = directory / "journal";
  std::string const reports = directory / "reports";
  sweep_plan const plan = synthetic_plan(layers);
  // Runs take about a millisecond; two children work at a time so that a kill can hit one thread
  // in its run and the other in its write.
  auto const sweep = [&] {
    auto const results = run_sweep(plan, {.journal = journal, .resume = true}, spawning_for{2},
                                   [](sweep_run const& run) {
                                     ::usleep(static_cast<useconds_t>(500 + 300 * run.seed));
                                     return scores(run);
                                   });
    lamina::write_file_atomically(reports, all_reports(results));
  };
  lamina::counter_generator moment(static_cast<std::uint64_t>(::getpid()));
  int killed = 0, round = 0;
  for (; killed < 20 && round < 400; ++round) {
    ::unlink(reports.c_str());
    if (round % 4 == 0) ::unlink(journal.c_str());
    std::fflush(stdout);
    pid_t const child = ::fork();
    if (child == 0) {
      sweep();
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(moment.below(25000)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    killed += WIFSIGNALED(status) ? 1 : 0;
    if (!WIFSIGNALED(status)) CHECK(WEXITSTATUS(status) == 0);
    // Every fourth kill the sweep is seen through to its end.
    if (round % 4 == 3) {
      sweep();
      REQUIRE(lamina::read_file(reports) == expected_reports());
    }
  }
  CHECK(killed == 20);
  sweep();
  CHECK(lamina::read_file(reports) == expected_reports());
}

TEST_CASE("run_sweep: seed by seed changes the order of the runs and no result") {
  sweep_plan const plan = synthetic_plan(layers);
  auto const expected = run_sweep(plan, {}, lamina::serial_for{}, scores);
  std::vector<std::uint64_t> seeds;
  std::vector<std::string> first;
  auto const results = run_sweep(plan, {.order = lamina::sweep_order::by_seed},
                                 lamina::serial_for{}, [&](sweep_run const& run) {
                                   if (run.seed <= 1) first.push_back(run.variant.name);
                                   seeds.push_back(run.seed);
                                   return scores(run);
                                 });
  CHECK(std::is_sorted(seeds.begin(), seeds.end()));
  REQUIRE(first.size() == plan.variants.size());
  for (std::size_t v = 0; v < first.size(); ++v) CHECK(first[v] == plan.variants[v].name);
  CHECK(all_reports(results) == all_reports(expected));
}
