// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tasks, and the one place where a task's name becomes a type.
#pragma once

#include "examples/layer_sweep/brief_sentences.hpp"
#include "examples/layer_sweep/task_agent.hpp"
#include "examples/layer_sweep/task_chain.hpp"
#include "examples/layer_sweep/task_code.hpp"
#include "examples/layer_sweep/task_math.hpp"
#include "examples/layer_sweep/word_problems.hpp"
#include "lamina/core/error.hpp"

namespace layer_sweep {

/// Returns f.template operator()<Task>() for the task with this name, which has a small model of
/// its own. Throws config_error if there is none.
template <class F>
auto with_task(std::string_view name, F&& f) {
  if (name == math_task::name) return f.template operator()<math_task>();
  if (name == chain_task::name) return f.template operator()<chain_task>();
  if (name == code_task::name) return f.template operator()<code_task>();
  if (name == agent_task::name) return f.template operator()<agent_task>();
  if (name == word_problems::name || name == brief_sentences::name) {
    lamina::throw_config_error("--task is '", name,
                               "', which needs a pretrained model, but --model is not given");
  }
  lamina::throw_config_error("--task is '", name,
                             "', expected math, chain, code or agent; or words or brief, with "
                             "--model");
}

/// The same for a task in words, which a pretrained model is trained on.
template <class F>
auto with_text_task(std::string_view name, F&& f) {
  if (name == word_problems::name) return f.template operator()<word_problems>();
  if (name == brief_sentences::name) return f.template operator()<brief_sentences>();
  lamina::throw_config_error("--task is '", name, "', expected words or brief with --model");
}

}  // namespace layer_sweep
