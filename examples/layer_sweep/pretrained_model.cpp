// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sweeps of a published chat model, for tasks in words.
#include "examples/layer_sweep/print_plan.hpp"
#include "examples/layer_sweep/program.hpp"
#include "examples/layer_sweep/tasks.hpp"
#include "examples/layer_sweep/text_provenance.hpp"
#include "examples/support/gemm.hpp"

namespace layer_sweep {
namespace {

template <text_problems Problems>
int sweep_task(command const& c) {
  using model_type = decoder::transformer<examples::chosen_backend<float>>;
  decoder::pretrained const source(c.model);
  command with_model = c;
  settings& s = with_model.sweep;
  s.layers = source.shape().layer_count;
  check_selections(s);
  chat_tokens const tokens = chat_tokens_of(source);
  text_task<Problems, chat_tokens> const task(tokens, s.response_length, s.evaluation_prompts);
  auto prompts = task.evaluation_prompts();
  index_t longest = 0;
  for (auto const& prompt : prompts) {
    longest = (std::max)(longest, static_cast<index_t>(task.encode(prompt).size()));
  }
  if (c.what == action::plan) {
    print_plan(s, source.shape(), longest, task.response_length);
    return 0;
  }
  program sweep(with_model, text_provenance<Problems>(s, source, tokens));
  return sweep.run([&] {
    std::vector<model_type> bases;
    bases.push_back(decoder::load_pretrained(examples::chosen_backend<float>{}, source));
    return task_sweep(
        s, task, std::move(bases),
        sampled_and_greedy_score(task, std::move(prompts), s.evaluation_samples, s.temperature),
        thread_for{c.threads});
  });
}

}  // namespace

int sweep_pretrained_model(command const& c) {
  return with_text_task(c.sweep.task,
                        [&c]<text_problems Problems>() { return sweep_task<Problems>(c); });
}

}  // namespace layer_sweep
