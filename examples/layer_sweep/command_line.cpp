// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The command line: recipes as defaults, every value checked before anything is done.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <initializer_list>
#include <limits>
#include <thread>
#include <utility>

#include "examples/layer_sweep/settings.hpp"
#include "examples/layer_sweep/tasks.hpp"
#include "examples/layer_sweep/variants.hpp"
#include "lamina/io/record.hpp"

namespace layer_sweep {
namespace {

// Options as they were typed; empty means the recipe's value.
struct typed {
  std::string task, algorithm = "grpo", model, profile, select, out = "layer_sweep_out";
  std::string layers, bases, seeds, steps, prompts, group_size, mini_batches;
  std::string learning_rate, layer_learning_rate, pretraining_steps, evaluation_prompts, threads;
  std::string full_seeds, temperature, evaluation_samples, response_length;
  bool quick = false, full = false, resume = false, report_only = false, plan = false;
};

void add_options(CLI::App& app, typed& t) {
  app.get_formatter()->column_width(34);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option(
         "--task", t.task,
         "math (default), chain, code or agent; with a model of your\nown words (default) or "
         "brief")
      ->type_name("NAME");
  app.add_option("--model", t.model,
                 "a chat model to train: a GGUF file, or a directory as Hugging\nFace has them")
      ->type_name("PATH");
  app.add_flag("--quick", t.quick, "a small model and few steps: under 30 seconds");
  app.add_flag("--full", t.full,
               "three pretrained bases, twice the seeds of full training, and\na second table of "
               "single layers at 3x the learning rate: minutes");
  app.add_option("--select", t.select,
                 "train this instead of every single layer: \"5\", \"2-4\",\n\"middle:3\", "
                 "\"every:2\", \"!0\", \"2-4:mlp\", \"0,last:2\",\n\"top:2@profile.json\", ...")
      ->type_name("LAYERS");
  app.add_option(
         "--profile", t.profile,
         "the single layers to train, seed by seed and the far ones\nfirst: \"every:3\"; with "
         "--select that too (with a model: all)")
      ->type_name("LAYERS");
  app.add_option("--algorithm", t.algorithm, "grpo (default) or dr_grpo")->type_name("NAME");
  auto const number = [&app](char const* name, std::string& value, char const* text) {
    app.add_option(name, value, text)->type_name("N");
  };
  number("--layers", t.layers, "decoder layers of the model (8)");
  number("--bases", t.bases, "independently pretrained models (1)");
  number("--seeds", t.seeds, "reinforcement-learning seeds of every run (3)");
  number("--full-seeds", t.full_seeds, "seeds of full training (as many)");
  number("--steps", t.steps, "GRPO steps of a run (math: 60)");
  number("--prompts", t.prompts, "prompts of a step (16)");
  number("--group-size", t.group_size, "rollouts of a prompt (8)");
  number("--mini-batches", t.mini_batches, "optimizer steps of a step (2)");
  number("--temperature", t.temperature, "of sampling, training and scoring, with --model (1)");
  number("--response-length", t.response_length, "tokens of the longest response, with --model");
  number("--learning-rate", t.learning_rate, "of full training (math: 3e-4)");
  number("--layer-learning-rate", t.layer_learning_rate,
         "of everything else (the learning rate of full training)");
  number("--pretraining-steps", t.pretraining_steps, "(math: 1000)");
  number("--evaluation-prompts", t.evaluation_prompts,
         "held-out problems to score on (all; with a model: 128)");
  number("--evaluation-samples", t.evaluation_samples, "samples of each, with --model (4)");
  number("--threads", t.threads, "runs at the same time (all cores); no number depends on it");
  app.add_option("--out", t.out, "directory for models, journal and reports (layer_sweep_out)")
      ->type_name("DIR");
  app.add_flag("--resume", t.resume,
               "go on with the interrupted sweep in DIR; otherwise its\njournal.txt becomes "
               "journal.previous.txt, and a new sweep starts");
  app.add_flag("--report-only", t.report_only,
               "report what the journal in DIR has by now, also while\nthe sweep goes on");
  app.add_flag("--plan", t.plan, "print what a run takes in memory and operations, and end");
}

index_t whole_number(char const* option, std::string const& text, index_t otherwise, index_t least,
                     index_t most) {
  if (text.empty()) return otherwise;
  index_t value = 0;
  if (!lamina::parse_number(text, value) || value < least || value > most) {
    lamina::throw_config_error(option, " is '", text, "', expected a whole number from ", least,
                               " to ", most);
  }
  return value;
}

double rate(char const* option, std::string const& text, double otherwise) {
  if (text.empty()) return otherwise;
  double value = 0;
  if (!lamina::parse_number(text, value) || !(value > 0 && value <= 1)) {
    lamina::throw_config_error(option, " is '", text, "', expected a number above 0 and up to 1");
  }
  return value;
}

void check_algorithm(typed const& t) {
  if (t.algorithm != "grpo" && t.algorithm != "dr_grpo") {
    lamina::throw_config_error("--algorithm is '", t.algorithm, "', expected grpo or dr_grpo");
  }
}

// What is common to small models and pretrained ones; the defaults are in `s`.
void resolve_training(typed const& t, settings& s) {
  check_algorithm(t);
  s.algorithm = t.algorithm;
  s.select = t.select;
  s.profile = t.profile;
  s.seeds = whole_number("--seeds", t.seeds, s.seeds, 1, 1000);
  s.full_seeds =
      whole_number("--full-seeds", t.full_seeds, t.full ? 2 * s.seeds : s.seeds, 1, 1000);
  s.steps = whole_number("--steps", t.steps, s.steps, 1, 1'000'000);
  s.prompts = whole_number("--prompts", t.prompts, s.prompts, 1, 4096);
  s.group_size = whole_number("--group-size", t.group_size, s.group_size, 2, 1024);
  s.mini_batches = whole_number("--mini-batches", t.mini_batches, s.mini_batches, 1, s.prompts);
  if (s.prompts % s.mini_batches != 0) {
    lamina::throw_config_error("--mini-batches is '", s.mini_batches,
                               "', expected a divisor of --prompts ", s.prompts);
  }
  s.learning_rate = rate("--learning-rate", t.learning_rate, s.learning_rate);
  s.evaluation_prompts = whole_number("--evaluation-prompts", t.evaluation_prompts,
                                      s.evaluation_prompts, 1, 1'000'000);
}

// An option of the other kind of model has no meaning: named, not ignored.
void refuse_options(char const* where, std::initializer_list<std::pair<char const*, bool>> given) {
  for (auto const& [option, used] : given) {
    if (used) lamina::throw_config_error(option, " is given, which means nothing ", where);
  }
}

settings resolve_pretrained(typed const& t) {
  refuse_options("with --model", {{"--layers", !t.layers.empty()},
                                  {"--bases", !t.bases.empty()},
                                  {"--pretraining-steps", !t.pretraining_steps.empty()},
                                  {"--quick", t.quick},
                                  {"--full", t.full}});
  settings s;
  s.task = t.task.empty() ? "words" : t.task;
  text_recipe const recipe =
      with_text_task(s.task, []<text_problems Problems>() { return Problems::recipe; });
  s.layers = 0;  // the model's
  s.seeds = 2;
  s.prompts = 8;
  s.steps = recipe.steps;
  s.learning_rate = recipe.learning_rate;
  s.evaluation_prompts = 128;
  resolve_training(t, s);
  if (s.profile.empty() && s.select.empty()) s.profile = "all";
  s.layer_learning_rate =
      rate("--layer-learning-rate", t.layer_learning_rate,
           t.learning_rate.empty() ? recipe.layer_learning_rate : s.learning_rate);
  s.temperature = rate("--temperature", t.temperature, 1);
  s.response_length =
      whole_number("--response-length", t.response_length, recipe.response_length, 1, 4096);
  s.evaluation_samples =
      whole_number("--evaluation-samples", t.evaluation_samples, s.evaluation_samples, 2, 1024);
  return s;
}

settings resolve_small(typed const& t) {
  refuse_options("without --model", {{"--temperature", !t.temperature.empty()},
                                     {"--response-length", !t.response_length.empty()},
                                     {"--evaluation-samples", !t.evaluation_samples.empty()}});
  if (t.quick && t.full) {
    lamina::throw_config_error("--quick and --full are both given, expected at most one of them");
  }
  settings s;
  s.task = t.task.empty() ? "math" : t.task;
  training_recipe const recipe =
      with_task(s.task, []<demonstrated_task Task>() { return Task::recipe; });
  s.layers = whole_number("--layers", t.layers, t.quick ? 4 : 8, 1, 64);
  s.bases = whole_number("--bases", t.bases, t.full ? 3 : 1, 1, 100);
  s.seeds = t.quick ? 2 : 3;
  s.steps = t.quick ? recipe.steps * 2 / 3 : recipe.steps;
  s.learning_rate = recipe.learning_rate;
  resolve_training(t, s);
  s.layer_learning_rate = rate("--layer-learning-rate", t.layer_learning_rate, s.learning_rate);
  s.second_learning_rate = t.full ? 3 * s.layer_learning_rate : 0;
  index_t const pretraining = t.quick ? recipe.pretraining_steps * 4 / 5 : recipe.pretraining_steps;
  s.pretraining_steps =
      whole_number("--pretraining-steps", t.pretraining_steps, pretraining, 1, 1'000'000);
  s.pretraining_learning_rate = s.layers <= 4 ? 4e-3 : 3e-3;
  check_selections(s);
  return s;
}

// The first line of a message: CLI11 adds a hint about --help on a second one.
std::string first_line(std::string const& text) { return text.substr(0, text.find('\n')); }

}  // namespace

void check_selections(settings const& s) {
  // top and worst need a profile, which is not measured yet.
  if (!s.select.empty()) static_cast<void>(selected_by(s));
  if (!s.profile.empty() && lamina::parse_layers(s.profile, s.layers).empty()) {
    lamina::throw_selection_error("--profile is '", s.profile,
                                  "', which is no layer at all; expected at least one of 0..",
                                  s.layers - 1);
  }
}

bool parse_command_line(int argument_count, char const* const* arguments, command& result) {
  typed t;
  CLI::App app(
      "Measures what every layer of a small transformer contributes to reinforcement learning:\n"
      "pretrains a model, trains it in full and one layer at a time with GRPO, and reports\n"
      "C(k) = (S_k - S_base) / (S_full - S_base). Needs no data; writes a report into DIR.",
      "layer_sweep");
  add_options(app, t);
  try {
    app.parse(argument_count, arguments);
  } catch (CLI::CallForHelp const&) {
    std::fputs(app.help().c_str(), stdout);
    return false;
  } catch (CLI::ParseError const& problem) {
    lamina::throw_config_error(first_line(problem.what()), "; --help lists the options");
  }
  if (t.report_only && t.plan) {
    lamina::throw_config_error("--report-only and --plan are both given, expected one of them");
  }
  result.model = t.model;
  result.sweep = t.model.empty() ? resolve_small(t) : resolve_pretrained(t);
  if (t.report_only) result.what = action::report;
  if (t.plan) result.what = action::plan;
  auto const cores = static_cast<index_t>(std::thread::hardware_concurrency());
  result.threads = whole_number("--threads", t.threads, (std::max)(cores, index_t{1}), 1, 1024);
  result.resume = t.resume;
  result.out = t.out;
  if (result.out.empty()) lamina::throw_config_error("--out is '', expected a directory");
  return true;
}

}  // namespace layer_sweep
