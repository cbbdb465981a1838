// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The sweep driver: makes every run of a plan once, through the host's own threads, journals each,
// and goes on after a kill where it stopped.
#pragma once

#include <atomic>
#include <concepts>
#include <ctime>
#include <exception>
#include <mutex>
#include <optional>
#include <utility>

#include "lamina/core/lanes.hpp"
#include "lamina/study/sweep_journal.hpp"

LAMINA_NAMESPACE_BEGIN

/// In which order runs are begun. The results do not depend on it, only what an interrupted sweep
/// has finished.
enum class sweep_order : std::uint8_t {
  by_variant,  // all seeds of the first variant, then of the next
  by_seed,     // every variant with its first seed, then every variant with its second
};

/// Where a sweep keeps its finished runs, and how it makes them.
struct sweep_options {
  /// Path of the journal; empty for none.
  std::string journal{};
  /// Go on with the runs in the journal. Without it a journal that holds runs is refused. A later
  /// stage (variants chosen from earlier results) is the same journal with a longer plan, resumed.
  bool resume = false;
  sweep_order order = sweep_order::by_variant;
};

/// How far a sweep is.
struct sweep_progress {
  /// Runs finished, those taken from the journal included.
  index_t finished = 0;
  index_t total = 0;
  /// Runs taken from the journal.
  index_t resumed = 0;
  /// Seconds since the sweep was started or resumed.
  double elapsed = 0;
  /// Seconds to go if runs keep taking what they took; NaN before the first has finished.
  double remaining = not_a_number;
  /// The run that just finished; null in the first call, which comes before any.
  sweep_run const* run = nullptr;
  run_result const* result = nullptr;
};

/// Does nothing with progress.
struct ignore_progress {
  void operator()(sweep_progress const&) const {}
};

namespace detail {

// Calls f and hands back what it threw: an exception must not leave a range of a parallel_for.
template <class F>
std::exception_ptr caught(F&& f) {
#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
  try {
    f();
  } catch (...) {
    return std::current_exception();
  }
#else
  f();
#endif
  return nullptr;
}

// Seconds on a clock that is never set. POSIX, because <chrono> costs a tenth of a second to
// include.
inline double seconds_now() {
  std::timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// What the threads of one sweep share. Runs are handed out one at a time, so that a thread with
// short runs takes more of them.
template <class Run, class Progress>
class sweep_in_progress {
 public:
  sweep_in_progress(sweep_plan const& plan, std::vector<run_result>& runs, sweep_journal* journal,
                    sweep_order order, Run& run, Progress& progress)
      : plan_(plan), runs_(runs), journal_(journal), run_(run), progress_(progress) {
    for (std::size_t i = 0; i < runs_.size(); ++i) {
      if (journal_ == nullptr || !journal_->find(variant_of(runs_[i]), runs_[i])) {
        pending_.push_back(i);
      }
    }
    if (order == sweep_order::by_seed) {
      std::vector<index_t> const place = seed_places(runs_);
      std::stable_sort(pending_.begin(), pending_.end(),
                       [&](std::size_t a, std::size_t b) { return place[a] < place[b]; });
    }
    status_.total = static_cast<index_t>(runs_.size());
    status_.resumed = status_.total - pending_count();
    status_.finished = status_.resumed;
  }

  index_t pending_count() const noexcept { return static_cast<index_t>(pending_.size()); }

  void report_start() { progress_(std::as_const(status_)); }

  // Works until no run is left or one has failed. Several threads may be in here.
  void work() {
    for (;;) {
      std::size_t const next = next_.fetch_add(1);
      if (next >= pending_.size() || failed_.load()) return;
      if (std::exception_ptr const failure = caught([&] { finish(runs_[pending_[next]]); })) {
        std::lock_guard<std::mutex> const lock(mutex_);
        if (!failure_) failure_ = failure;
        failed_.store(true);
      }
    }
  }

  std::exception_ptr failure() const { return failure_; }

 private:
  sweep_variant const& variant_of(run_result const& result) const {
    return plan_.variants[static_cast<std::size_t>(result.variant)];
  }

  static void check_extras(sweep_run const& run, std::vector<named_number> const& extras) {
    for (std::size_t b = 0; b < extras.size(); ++b) {
      for (std::size_t a = 0; a < b; ++a) {
        if (extras[a].name == extras[b].name) {
          throw_config_error("run_sweep: the run (", run.name(), ") reports '", extras[a].name,
                             "' twice");
        }
      }
    }
  }

  void finish(run_result& result) {
    sweep_run const run{result.base, result.seed, variant_of(result)};
    double const start = seconds_now();
    run_scores scores = run_(run);
    result.seconds = seconds_now() - start;
    result.score = scores.score;
    result.extras = std::move(scores.extras);
    if (!is_finite(result.score)) {
      throw_measurement_error("run_sweep: the run (", run.name(), ") has score ", result.score,
                              ", expected a finite number");
    }
    check_extras(run, result.extras);
    std::lock_guard<std::mutex> const lock(mutex_);
    if (journal_ != nullptr) journal_->append(run.variant, result);
    ++status_.finished;
    status_.elapsed = seconds_now() - started_;
    status_.remaining = status_.elapsed / static_cast<double>(status_.finished - status_.resumed) *
                        static_cast<double>(status_.total - status_.finished);
    status_.run = &run;
    status_.result = &result;
    progress_(std::as_const(status_));
  }

  sweep_plan const& plan_;
  std::vector<run_result>& runs_;
  sweep_journal* journal_;
  Run& run_;
  Progress& progress_;
  std::vector<std::size_t> pending_;
  double started_ = seconds_now();
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  sweep_progress status_;
  std::exception_ptr failure_;
};

}  // namespace detail

/// Makes every run of the plan that the journal does not have yet, and returns all of them in plan
/// order: the same whatever the threads, the order of finishing, and however often the sweep was
/// killed and resumed.
///
/// parallel  the caller's threads; each takes one run after another
/// run       called as run(sweep_run const&) -> run_scores, from several threads at once if
///           parallel has several
/// progress  called as progress(sweep_progress const&), once before the first run and after every
///           run, never by two threads at once
/// If a run throws, no new ones are started, those under way are finished and journaled, and the
/// first exception is thrown on; so too if progress throws. A score that is not finite is a
/// measurement_error, an extra reported twice a config_error. Throws config_error for a plan
/// without variants or seeds, with names or seeds twice, and for a journal that holds runs when
/// resume is false; otherwise as sweep_journal.
template <parallel_for ParallelFor, class Run, class Progress = ignore_progress>
requires std::invocable<Run&, sweep_run const&> && std::invocable<Progress&, sweep_progress const&>
    sweep_results run_sweep(sweep_plan const& plan, sweep_options const& options,
                            ParallelFor const& parallel, Run&& run, Progress&& progress = {}) {
  static_assert(std::is_convertible_v<std::invoke_result_t<Run&, sweep_run const&>, run_scores>,
                "lamina: the run of a sweep must return run_scores");
  detail::check_plan(plan);
  std::optional<sweep_journal> journal;
  if (!options.journal.empty()) journal.emplace(options.journal, options.resume, plan.settings);
  sweep_results results{plan, detail::runs_of(plan)};
  detail::sweep_in_progress<std::remove_reference_t<Run>, std::remove_reference_t<Progress>> sweep(
      results.plan, results.runs, journal ? &*journal : nullptr, options.order, run, progress);
  sweep.report_start();
  parallel(sweep.pending_count(), index_t{1}, [&sweep](index_t, index_t) { sweep.work(); });
  if (sweep.failure()) std::rethrow_exception(sweep.failure());
  return results;
}

LAMINA_NAMESPACE_END
