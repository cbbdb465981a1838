// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tasks, and the one place where a task's name becomes its type.
#pragma once

#include "examples/layer_sweep/task_agent.hpp"
#include "examples/layer_sweep/task_chain.hpp"
#include "examples/layer_sweep/task_code.hpp"
#include "examples/layer_sweep/task_math.hpp"
#include "lamina/core/error.hpp"

namespace layer_sweep {

/// Returns f.template operator()<Task>() for the task with this name. Throws config_error if there
/// is none.
template <class F>
auto with_task(std::string_view name, F&& f) {
  if (name == math_task::name) return f.template operator()<math_task>();
  if (name == chain_task::name) return f.template operator()<chain_task>();
  if (name == code_task::name) return f.template operator()<code_task>();
  if (name == agent_task::name) return f.template operator()<agent_task>();
  lamina::throw_config_error("--task is '", name, "', expected math, chain, code or agent");
}

}  // namespace layer_sweep
