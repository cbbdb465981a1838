// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Select layers, train them with GRPO, measure what each contributed. Exit status 0, or 2 with one
// line on the error stream.
#include <cstdio>
#include <exception>
#include <string>

#include "examples/layer_sweep/program.hpp"
#include "examples/layer_sweep/tasks.hpp"

int main(int argument_count, char** arguments) {
  try {
    layer_sweep::command command;
    if (!layer_sweep::parse_command_line(argument_count, arguments, command)) return 0;
    layer_sweep::with_task(command.sweep.task, [&command]<layer_sweep::verifiable_task Task>() {
      layer_sweep::run_program<Task>(command);
    });
    return 0;
  } catch (std::exception const& problem) {
    std::string line = problem.what();
    for (char& c : line) {
      if (c == '\n' || c == '\r') c = ' ';
    }
    std::fprintf(stderr, "layer_sweep: %s\n", line.c_str());
    return 2;
  }
}
