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

template <verifiable_task Task>
std::vector<lamina::report_setting> provenance(settings const& s, index_t evaluation_count) {
  using lamina::exact_text;
  auto const number = [](index_t value) { return std::to_string(value); };
  std::string const algorithm =
      s.algorithm == "dr_grpo"
          ? "Dr. GRPO: advantage r - mean of the group; every sampled token weighs "
            "1 / (sequences x longest response)"
          : "GRPO: advantage (r - mean) / standard deviation of the group; mean over all sampled "
            "tokens of a mini-batch";
  std::string const evaluation =
      number(evaluation_count) + " held-out problems, " +
      (unique_answer_task<Task>
           ? "score = probability of the right answer at temperature 1, computed by teacher forcing"
           : "score = fraction of right answers at temperature 1, four samples of each with the "
             "same noise for all runs");
  std::vector<lamina::report_setting> list{
      {"task", s.task},
      {"fingerprint of the task's data", task_fingerprint<Task>()},
      {"algorithm", algorithm},
      {"clip range", "0.2 low, 0.2 high; no KL term"},
      {"step", number(s.prompts) + " prompts x " + number(s.group_size) +
                   " rollouts at temperature 1, " + number(s.mini_batches) + " optimizer steps"},
      {"budget", number(s.steps) + " steps"},
      {"learning rate of full training", exact_text(s.learning_rate)},
      {"learning rate of layers", exact_text(s.layer_learning_rate)}};
  if (s.second_learning_rate > 0) {
    list.push_back({"learning rate of the second table", exact_text(s.second_learning_rate)});
  }
  std::vector<lamina::report_setting> const rest{
      {"optimizer",
       "AdamW, betas 0.9 and 0.95, no weight decay, global gradient norm clipped to 1"},
      {"model", number(s.layers) +
                    " layers, width 32, 2 heads of 16, feed-forward 64, vocabulary " +
                    number(static_cast<index_t>(Task::vocabulary.size())) + ", float32"},
      {"pretraining", number(s.pretraining_steps) + " steps of " + number(s.pretraining_batch) +
                          " demonstrations, learning rate " +
                          exact_text(s.pretraining_learning_rate)},
      {"evaluation", evaluation},
      {"seeds of full training", number(s.full_seeds)},
      {"selection", s.select.empty() ? std::string("every layer") : s.select},
      {"matrix product", examples::chosen_gemm_name},
      {"compiler", __VERSION__}};
  list.insert(list.end(), rest.begin(), rest.end());
  return list;
}

/// The same as one line. Numbers of bases and seeds are not in it: more of them continue a sweep.
inline std::string journal_key(std::vector<lamina::report_setting> const& list) {
  std::string text;
  for (lamina::report_setting const& setting : list) {
    if (setting.key == "seeds of full training") continue;
    text += setting.key + ": " + setting.value + "; ";
  }
  return text;
}

}  // namespace layer_sweep
