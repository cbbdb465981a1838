// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Everything that decides the numbers of a sweep, and what the command line asked for.
#pragma once

#include <cstdint>
#include <string>

#include "lamina/config.hpp"

namespace layer_sweep {

using lamina::index_t;

/// What a task was found to need; the defaults of the options with the same names.
struct training_recipe {
  index_t pretraining_steps = 0;
  index_t steps = 0;
  double learning_rate = 0;
};

/// All of it is provenance: two sweeps with equal settings write equal reports.
struct settings {
  std::string task = "math";
  std::string algorithm = "grpo";
  /// The single layers to train, as a selection; empty for every layer and the rest of the table.
  std::string profile;
  /// A selection to train besides those, or instead of the whole table; empty for none.
  std::string select;

  index_t layers = 8;
  index_t bases = 1;
  /// Reinforcement-learning seeds 1..seeds of every variant, and of full training, which enters
  /// every contribution and is worth more of them.
  index_t seeds = 3;
  index_t full_seeds = 3;

  index_t steps = 0;
  index_t prompts = 16;
  index_t group_size = 8;
  index_t mini_batches = 2;
  /// At which rollouts are sampled, trained on and scored.
  double temperature = 1;
  double learning_rate = 0;
  double layer_learning_rate = 0;
  /// Of the second table of single layers; 0 for none.
  double second_learning_rate = 0;

  index_t pretraining_steps = 0;
  index_t pretraining_batch = 64;
  double pretraining_learning_rate = 0;

  /// Held-out problems that are scored; 0 for all.
  index_t evaluation_prompts = 0;

  /// Of text tasks: samples of each held-out problem, and tokens of the longest response.
  index_t evaluation_samples = 4;
  index_t response_length = 0;

  /// Layers of middle-k, last-k, top-k and Boost: a third, rounded up.
  constexpr index_t selected_count() const { return (layers + 2) / 3; }
};

/// Throws selection_error if the profile or the selection is no layer at all, or not of this model.
void check_selections(settings const& s);

/// What a command does.
enum class action {
  sweep,
  report,  // write the report of what the journal has, train nothing
  plan,    // print what the sweep takes, train nothing
};

/// The settings, and what has no influence on the numbers.
struct command {
  settings sweep;
  action what = action::sweep;
  /// Path of a pretrained model; empty for a small one that is pretrained here.
  std::string model;
  index_t threads = 1;
  bool resume = false;
  std::string out = "layer_sweep_out";
};

/// What the command line asks for. Returns false if it asked for help, which has been printed.
/// Throws lamina::config_error with one line that names the option, its value and what was
/// expected.
bool parse_command_line(int argument_count, char const* const* arguments, command& result);

/// Does what the command says and returns the exit status: with models that are pretrained here,
/// and with the one it names.
int sweep_small_models(command const& c);
int sweep_pretrained_model(command const& c);

}  // namespace layer_sweep
