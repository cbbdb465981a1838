// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sweeps of models that are pretrained here, for tasks of a few symbols.
#include "examples/layer_sweep/base_models.hpp"
#include "examples/layer_sweep/print_plan.hpp"
#include "examples/layer_sweep/program.hpp"
#include "examples/layer_sweep/tasks.hpp"
#include "examples/support/gemm.hpp"

namespace layer_sweep {
namespace {

template <demonstrated_task Task>
int sweep_task(command const& c) {
  using model_type = decoder::transformer<examples::chosen_backend<float>>;
  settings const& s = c.sweep;
  Task const task;
  if (c.what == action::plan) {
    print_plan(s, model_shape<Task>(s), task.prompt_length, task.response_length);
    return 0;
  }
  auto prompts = evaluation_prompts(task, s.evaluation_prompts);
  program sweep(c, provenance<Task>(s, static_cast<index_t>(prompts.size())));
  return sweep.run([&] {
    thread_for const threads{c.threads};
    std::vector<model_type> bases;
    for (index_t base = 0; base < s.bases; ++base) {
      bases.push_back(
          base_model<Task, model_type>(examples::chosen_backend<float>{}, s, base, c.out, threads));
    }
    return task_sweep(s, task, std::move(bases), task_score<Task>(task, std::move(prompts)),
                      threads);
  });
}

}  // namespace

int sweep_small_models(command const& c) {
  return with_task(c.sweep.task, [&c]<demonstrated_task Task>() { return sweep_task<Task>(c); });
}

}  // namespace layer_sweep
