// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The sweep of one task: every row of the table on every base for every seed, journaled.
#pragma once

#include <string>
#include <vector>

#include "examples/layer_sweep/grpo_run.hpp"
#include "examples/layer_sweep/progress.hpp"
#include "examples/layer_sweep/score.hpp"
#include "examples/layer_sweep/thread_for.hpp"
#include "examples/layer_sweep/variants.hpp"
#include "lamina/optim/audit.hpp"
#include "lamina/study/sweep.hpp"

namespace layer_sweep {

/// Names of what a run reports besides its score.
inline constexpr char const* training_reward = "training reward";
inline constexpr char const* tensors_moved = "tensors moved";
inline constexpr char const* selected_unmoved = "selected tensors unmoved";
inline constexpr char const* frozen_moved = "frozen tensors changed";
inline constexpr char const* evaluation_error = "evaluation error";

/// Makes the runs of a sweep. One backend serves all threads: it has no state.
template <verifiable_task Task, class Model, class Score>
class task_sweep {
 public:
  /// bases  the models every run starts from, one a base of the plan
  /// score  called as score(model) -> layer_sweep::score from several threads at once
  task_sweep(settings const& s, Task const& task, std::vector<Model> bases, Score score,
             thread_for threads)
      : settings_(s),
        task_(task),
        bases_(std::move(bases)),
        score_(std::move(score)),
        threads_(threads) {}

  /// All runs of the list that the journal does not have.
  ///
  /// journal_settings  what the journal must have been started under
  lamina::sweep_results run(variant_list const& variants, std::string const& journal,
                            std::string const& journal_settings, progress_line& progress) {
    return lamina::run_sweep(
        variants.plan(journal_settings),
        {.journal = journal, .resume = true, .order = variants.order()}, threads_,
        [&](lamina::sweep_run const& run) { return one(run, variants.row(run.variant.name)); },
        [&](lamina::sweep_progress const& status) {
          if (status.run == nullptr) return;
          ++made_;
          progress.update(status.finished, status.finished - made_, line_of(status));
        });
  }

 private:
  lamina::run_scores one(lamina::sweep_run const& run, training const& row) const {
    Model const& base = bases_[static_cast<std::size_t>(run.base)];
    Model model(base.backend(), base.shape());
    model.copy_weights(base);
    lamina::run_scores result;
    if (run.variant.kind != lamina::variant_kind::base) {
      auto const before = lamina::weight_snapshot(lamina::all_parameters(model));
      double const reward = train(task_, model, settings_, row, run.seed);
      auto const audit = lamina::audit(before, lamina::all_parameters(model), row.plan);
      auto const count = [&audit](lamina::movement verdict) {
        return static_cast<double>(audit.count(verdict));
      };
      if (count(lamina::movement::frozen_moved) > 0) {
        lamina::throw_measurement_error("layer_sweep: run (", run.name(), ") changed ",
                                        audit.count(lamina::movement::frozen_moved),
                                        " frozen tensors, expected none");
      }
      result.extras = {{training_reward, reward},
                       {tensors_moved, count(lamina::movement::moved)},
                       {selected_unmoved, count(lamina::movement::selected_unmoved)},
                       {frozen_moved, count(lamina::movement::frozen_moved)}};
    }
    score const measured = score_(model);
    result.score = measured.value;
    if (measured.error > 0) result.extras.push_back({evaluation_error, measured.error});
    result.extras.insert(result.extras.end(), measured.details.begin(), measured.details.end());
    return result;
  }

  static std::string line_of(lamina::sweep_progress const& status) {
    char number[32];
    std::snprintf(number, sizeof number, ": S %.3f", status.result->score);
    return status.run->name() + number;
  }

  settings settings_;
  Task task_;
  std::vector<Model> bases_;
  Score score_;
  thread_for threads_;
  index_t made_ = 0;  // runs of this process
};

}  // namespace layer_sweep
