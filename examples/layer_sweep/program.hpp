// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One sweep: prepare the directory, train, choose, train on, report; whatever the task and the
// model.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

#include "examples/layer_sweep/output_directory.hpp"
#include "examples/layer_sweep/provenance.hpp"
#include "examples/layer_sweep/reporting.hpp"
#include "examples/layer_sweep/sweep.hpp"

namespace layer_sweep {

/// One sweep from the command line to the report.
class program {
 public:
  /// list  provenance, of which the journal's key is made
  program(command const& c, std::vector<lamina::report_setting> list)
      : command_(c),
        provenance_(std::move(list)),
        key_(journal_key(provenance_)),
        variants_(c.sweep) {}

  /// Makes what is missing and reports; make_sweep() gives the task_sweep when it is needed.
  /// Returns the exit status.
  template <class MakeSweep>
  int run(MakeSweep const& make_sweep) {
    settings const& s = command_.sweep;
    if (command_.what == action::report) {
      report_finished();
      return 0;
    }
    output_directory const out(command_.out);
    std::string const journal = out.journal(command_.resume, key_);
    stop_on_signals();
    std::printf("Layer sweep: task %s, %s, %lld layers, %lld steps of %lld x %lld rollouts\n",
                s.task.c_str(), s.algorithm.c_str(), static_cast<long long>(s.layers),
                static_cast<long long>(s.steps), static_cast<long long>(s.prompts),
                static_cast<long long>(s.group_size));
    std::fflush(stdout);
    auto const start = std::chrono::steady_clock::now();
    try {
      auto sweep = make_sweep();
      progress_line progress("run", variants_.run_count());
      lamina::sweep_results results = sweep.run(variants_, journal, key_, progress);
      if (variants_.chooses()) {
        variants_.choose(layer_scores(results, s.layers));
        results = sweep.run(variants_, journal, key_, progress);
      }
      progress.finish();
      report(std::move(results), {});
    } catch (interruption const&) {
      std::fprintf(stderr, "layer_sweep: stopped by signal %d; --resume goes on\n",
                   received_signal());
      if (reportable()) report_finished();
      return 128 + received_signal();
    }
    std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
    std::printf("%s. Report: %s/report.html\n",
                progress_line::seconds_text(seconds.count()).c_str(), command_.out.c_str());
    return 0;
  }

 private:
  lamina::finished_runs finished() const {
    return lamina::read_finished_runs(variants_.plan(key_), command_.out + "/journal.txt");
  }

  static bool has_scale(lamina::finished_runs const& found) {
    return found.results.variant_of(lamina::variant_kind::base) >= 0 &&
           found.results.variant_of(lamina::variant_kind::full) >= 0;
  }
  bool reportable() const { return has_scale(finished()); }

  // What the journal has by now; needs no lock, so that a sweep under way can be looked at.
  void report_finished() {
    lamina::finished_runs found = finished();
    if (found.complete() && variants_.chooses()) {
      variants_.choose(layer_scores(found.results, command_.sweep.layers));
      found = finished();
    }
    if (!has_scale(found)) {
      lamina::throw_config_error("layer_sweep: ", command_.out, "/journal.txt has ", found.finished,
                                 " finished runs, expected at least one of base and one of full "
                                 "training, without which there is no contribution");
    }
    std::string gap;
    index_t const total = variants_.run_count();
    if (found.finished < total) {
      gap = std::to_string(found.finished) + " of " + std::to_string(total) + " runs";
    }
    report(std::move(found.results), gap);
  }

  // gap  what there is of an incomplete sweep, in words
  void report(lamina::sweep_results results, std::string const& gap) const {
    lamina::contribution_options options;
    options.base_score_error = base_score_error(results);
    auto notes = report_notes(results);
    std::string title = "Layer contributions: task " + command_.sweep.task;
    if (!gap.empty()) {
      title += " (incomplete: " + gap + ")";
      notes.insert(notes.begin(),
                   "Incomplete: this is what " + gap +
                       " say; layers and seeds that are missing are not measured, not zero.");
    }
    lamina::sweep_report made = lamina::make_report(
        std::move(title), provenance_, std::move(results), command_.sweep.layers, options);
    made.notes = std::move(notes);
    write_report(command_.out, made);
    print_report(made);
  }

  command const& command_;
  std::vector<lamina::report_setting> provenance_;
  std::string key_;
  variant_list variants_;
};

}  // namespace layer_sweep
