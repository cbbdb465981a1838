// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the numbers of a sweep depend on, in words: printed in the report, and the key under which
// the journal keeps its runs.
#pragma once

#include <string>
#include <vector>

#include "examples/layer_sweep/settings.hpp"
#include "examples/layer_sweep/task.hpp"
#include "examples/support/gemm.hpp"
#include "lamina/io/record.hpp"
#include "lamina/study/report.hpp"

namespace layer_sweep {

inline constexpr char const* full_seeds_key = "seeds of full training";
inline constexpr char const* selection_key = "selection";

inline void append(std::vector<lamina::report_setting>& list,
                   std::vector<lamina::report_setting> const& more) {
  list.insert(list.end(), more.begin(), more.end());
}

/// What training depends on, whatever the model: the lines that describe the task go before it,
/// those that describe model and evaluation after it.
inline std::vector<lamina::report_setting> training_provenance(settings const& s) {
  using lamina::exact_text;
  auto const number = [](index_t value) { return std::to_string(value); };
  std::string const algorithm =
      s.algorithm == "dr_grpo"
          ? "Dr. GRPO: advantage r - mean of the group; every sampled token weighs "
            "1 / (sequences x longest response)"
          : "GRPO: advantage (r - mean) / standard deviation of the group; mean over all sampled "
            "tokens of a mini-batch";
  std::vector<lamina::report_setting> list{
      {"algorithm", algorithm},
      {"clip range", "0.2 low, 0.2 high; no KL term"},
      {"step", number(s.prompts) + " prompts x " + number(s.group_size) +
                   " rollouts at temperature " + exact_text(s.temperature) + ", " +
                   number(s.mini_batches) + " optimizer steps"},
      {"budget", number(s.steps) + " steps"},
      {"learning rate of full training", exact_text(s.learning_rate)},
      {"learning rate of layers", exact_text(s.layer_learning_rate)}};
  if (s.second_learning_rate > 0) {
    list.push_back({"learning rate of the second table", exact_text(s.second_learning_rate)});
  }
  list.push_back({"optimizer",
                  "AdamW, betas 0.9 and 0.95, no weight decay, global gradient norm clipped to 1"});
  return list;
}

/// What the numbers depend on besides: seeds and layers trained, product and compiler.
inline std::vector<lamina::report_setting> sweep_provenance(settings const& s) {
  std::string selection = "every layer";
  if (!s.profile.empty()) selection = "layers " + s.profile;
  if (!s.select.empty()) selection = (s.profile.empty() ? "" : selection + "; ") + s.select;
  return {{full_seeds_key, std::to_string(s.full_seeds)},
          {selection_key, selection},
          {"matrix product", examples::chosen_gemm_name},
          {"compiler", __VERSION__}};
}

template <demonstrated_task Task>
std::vector<lamina::report_setting> provenance(settings const& s, index_t evaluation_count) {
  auto const number = [](index_t value) { return std::to_string(value); };
  std::string const evaluation =
      number(evaluation_count) + " held-out problems, " +
      (unique_answer_task<Task>
           ? "score = probability of the right answer at temperature 1, computed by teacher forcing"
           : "score = fraction of right answers at temperature 1, four samples of each with the "
             "same noise for all runs");
  std::vector<lamina::report_setting> list{
      {"task", s.task}, {"fingerprint of the task's data", task_fingerprint<Task>()}};
  append(list, training_provenance(s));
  append(list,
         {{"model", number(s.layers) + " layers, width 32, 2 heads of 16, feed-forward 64, " +
                        "vocabulary " + number(static_cast<index_t>(Task::vocabulary.size())) +
                        ", float32"},
          {"pretraining", number(s.pretraining_steps) + " steps of " + number(s.pretraining_batch) +
                              " demonstrations, learning rate " +
                              lamina::exact_text(s.pretraining_learning_rate)},
          {"evaluation", evaluation}});
  append(list, sweep_provenance(s));
  return list;
}

/// The same as one line. Numbers of bases and seeds are not in it, nor which layers are trained:
/// more of them continue a sweep.
inline std::string journal_key(std::vector<lamina::report_setting> const& list) {
  std::string text;
  for (lamina::report_setting const& setting : list) {
    if (setting.key == full_seeds_key || setting.key == selection_key) continue;
    text += setting.key + ": " + setting.value + "; ";
  }
  return text;
}

}  // namespace layer_sweep
