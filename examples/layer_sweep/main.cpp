// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Select layers, train them with GRPO, measure what each contributed. Exit status 0, 2 with one
// line on the error stream, or 128 and the signal that stopped it.
#include <cstdio>
#include <exception>
#include <string>

#include "examples/layer_sweep/settings.hpp"

int main(int argument_count, char** arguments) {
  try {
    layer_sweep::command command;
    if (!layer_sweep::parse_command_line(argument_count, arguments, command)) return 0;
    return command.model.empty() ? layer_sweep::sweep_small_models(command)
                                 : layer_sweep::sweep_pretrained_model(command);
  } catch (std::exception const& problem) {
    std::string line = problem.what();
    for (char& c : line) {
      if (c == '\n' || c == '\r') c = ' ';
    }
    std::fprintf(stderr, "layer_sweep: %s\n", line.c_str());
    return 2;
  }
}
