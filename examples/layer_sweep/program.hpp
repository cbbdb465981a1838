// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The program: prepare the directory, sweep, choose, sweep on, report.
#pragma once

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>

#include "examples/layer_sweep/print_report.hpp"
#include "examples/layer_sweep/provenance.hpp"
#include "examples/layer_sweep/sweep.hpp"
#include "lamina/study/report_html.hpp"
#include "lamina/study/report_json.hpp"
#include "lamina/study/report_svg.hpp"
#include "lamina/study/report_table.hpp"

namespace layer_sweep {

/// The output directory, for one process at a time: the lock is held as long as this lives.
class output_directory {
 public:
  /// Makes the directory and removes what a killed process left half written. Throws io_error.
  explicit output_directory(std::string path)
      : path_((lamina::ensure_directory(path), std::move(path))), lock_(path_ + "/.lock") {
    for (auto const& entry : std::filesystem::directory_iterator(path_)) {
      if (entry.path().extension() == ".tmp") std::filesystem::remove(entry.path());
    }
  }

  std::string file(std::string const& name) const { return path_ + "/" + name; }

  /// Makes the journal ready: taken over if the sweep is resumed, else moved out of the way, so
  /// that finished runs are not lost. Throws as lamina::sweep_journal.
  std::string journal(bool resume, std::string const& key) const {
    std::string const path = file("journal.txt");
    if (!resume && std::filesystem::exists(path)) {
      std::filesystem::rename(path, file("journal.previous.txt"));
    }
    lamina::sweep_journal const checked(path, resume, key);
    return path;
  }

 private:
  std::string path_;
  lamina::append_log lock_;
};

/// Mean score of every layer: what top-k is chosen by, also where C is refused.
inline std::vector<double> layer_scores(lamina::sweep_results const& results, index_t layers) {
  std::vector<double> means;
  for (index_t layer = 0; layer < layers; ++layer) {
    auto const scores =
        results.scores(results.variant_named(std::string("layer:") + std::to_string(layer)));
    double total = 0;
    for (auto const& seeds : scores) total += lamina::mean(seeds);
    means.push_back(total / static_cast<double>(scores.size()));
  }
  return means;
}

/// Standard error of a base's score: that of its evaluation, where scores are sampled.
inline double base_score_error(lamina::sweep_results const& results) {
  double largest = 0;
  for (auto const& bases :
       results.extras(results.variant_of(lamina::variant_kind::base), evaluation_error)) {
    for (double const error : bases) {
      if (error > largest) largest = error;
    }
  }
  return largest;
}

/// What a reader has to know besides the numbers.
inline std::vector<std::string> report_notes(lamina::sweep_results const& results) {
  index_t runs = 0;
  double frozen = 0, unmoved = 0;
  for (lamina::run_result const& run : results.runs) {
    for (lamina::named_number const& extra : run.extras) {
      if (extra.name == frozen_moved) {
        ++runs;
        frozen += extra.value;
      }
      if (extra.name == selected_unmoved) unmoved += extra.value;
    }
  }
  std::vector<std::string> notes{
      "Checked bit by bit after each of the " + std::to_string(runs) +
      " training runs: frozen tensors that changed: " + lamina::exact_text(frozen) +
      "; selected tensors that did not move: " + lamina::exact_text(unmoved) + "."};
  for (auto const& base : results.scores(results.variant_of(lamina::variant_kind::base))) {
    if (base[0] >= 0.3 && base[0] <= 0.7) continue;
    char score[16];
    std::snprintf(score, sizeof score, "%.3f", base[0]);
    notes.push_back(std::string("Warning: S_base is ") + score +
                    ", outside 0.3 to 0.7, where a task is too hard or too easy for C to say "
                    "much.");
  }
  return notes;
}

inline void write_report(output_directory const& out, lamina::sweep_report const& report) {
  auto const write = [&out](char const* name, std::string const& text) {
    lamina::write_file_atomically(out.file(name), text);
  };
  write("profile.csv", lamina::csv_report(report));
  write("profile.svg", lamina::svg_profile(report));
  write("report.md", lamina::markdown_report(report));
  write("report.html", lamina::html_report(report));
  write("profile.json", lamina::json_report(report));
}

/// Does what the command says on the task.
template <verifiable_task Task>
void run_program(command const& c) {
  settings const& s = c.sweep;
  auto const evaluated =
      static_cast<index_t>(evaluation_prompts<Task>(s.evaluation_prompts).size());
  auto const list = provenance<Task>(s, evaluated);
  std::string const key = journal_key(list);
  output_directory const out(c.out);
  std::string const journal = out.journal(c.resume, key);

  std::printf("Layer sweep: task %s, %s, %lld layers, %lld steps of %lld x %lld rollouts\n",
              s.task.c_str(), s.algorithm.c_str(), static_cast<long long>(s.layers),
              static_cast<long long>(s.steps), static_cast<long long>(s.prompts),
              static_cast<long long>(s.group_size));
  std::fflush(stdout);
  auto const start = std::chrono::steady_clock::now();
  task_sweep<Task> sweep(s, c.out, {c.threads});
  variant_list variants(s);
  lamina::sweep_results results = [&] {
    progress_line progress("run", variants.run_count());
    auto first = sweep.run(variants, journal, key, progress);
    if (!variants.chooses()) return first;
    variants.choose(layer_scores(first, s.layers));
    return sweep.run(variants, journal, key, progress);
  }();

  lamina::contribution_options options;
  options.base_score_error = base_score_error(results);
  auto const notes = report_notes(results);
  lamina::sweep_report report = lamina::make_report("Layer contributions: task " + s.task, list,
                                                    std::move(results), s.layers, options);
  report.notes = notes;
  write_report(out, report);
  print_report(report);
  std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
  std::printf("%s. Report: %s/report.html\n", progress_line::seconds_text(seconds.count()).c_str(),
              c.out.c_str());
}

}  // namespace layer_sweep
