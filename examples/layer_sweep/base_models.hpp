// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The models a sweep starts from: pretrained on demonstrations once, then read from the output
// directory.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "examples/decoder/checkpoint.hpp"
#include "examples/decoder/pretraining.hpp"
#include "examples/layer_sweep/episodes.hpp"
#include "examples/layer_sweep/interruption.hpp"
#include "examples/layer_sweep/progress.hpp"
#include "examples/layer_sweep/settings.hpp"
#include "examples/layer_sweep/thread_for.hpp"
#include "lamina/optim/schedule.hpp"

namespace layer_sweep {

/// The model of a task: 32 wide, two heads of 16, about 10 k parameters a layer.
template <demonstrated_task Task>
decoder::config model_shape(settings const& s) {
  decoder::config shape;
  shape.layer_count = s.layers;
  shape.vocab = static_cast<index_t>(Task::vocabulary.size());
  return shape;
}

/// Everything a base depends on, as one text: the key of its checkpoint.
template <demonstrated_task Task>
std::string base_fingerprint(settings const& s, index_t base) {
  return "task " + s.task + " " + task_fingerprint<Task>() + ", base " + std::to_string(base) +
         ", layers " + std::to_string(s.layers) + ", pretraining steps " +
         std::to_string(s.pretraining_steps) + ", sequences " +
         std::to_string(s.pretraining_batch) + ", learning rate " +
         lamina::exact_text(s.pretraining_learning_rate);
}

/// Trains a new model on demonstrations. Base b has its own weights and its own demonstrations.
template <demonstrated_task Task, class Model>
void pretrain(Model& model, settings const& s, index_t base, thread_for const& threads) {
  auto const seed = static_cast<std::uint64_t>(base) + 1;
  model.initialize(seed);
  decoder::pretrainer trainer(model, decoder::pretraining_options{}, threads);
  lamina::linear_decay const schedule{
      .peak = s.pretraining_learning_rate,
      .warmup_steps = (std::min)(index_t{50}, s.pretraining_steps / 2)};
  progress_line progress("pretraining base " + std::to_string(base), s.pretraining_steps);
  for (index_t step = 0; step < s.pretraining_steps; ++step) {
    throw_if_interrupted();
    demonstration_batch shown;
    for (index_t i = 0; i < s.pretraining_batch; ++i) {
      shown.append(Task::demonstrate(seed, step * s.pretraining_batch + i));
    }
    auto const result =
        trainer.step({std::move(shown.tokens), std::move(shown.offsets), std::move(shown.targets)},
                     schedule.learning_rate(step, s.pretraining_steps));
    char loss[32];
    std::snprintf(loss, sizeof loss, "loss %.3f", result.loss);
    progress.update(step + 1, 0, loss);
  }
}

/// Base b of these settings: from its checkpoint in `directory` if there is one, else pretrained
/// and kept there. A checkpoint that is not what it says is an error, never replaced.
template <demonstrated_task Task, class Model, class Backend>
Model base_model(Backend const& backend, settings const& s, index_t base,
                 std::string const& directory, thread_for const& threads) {
  Model model(backend, model_shape<Task>(s));
  std::string const fingerprint = base_fingerprint<Task>(s, base);
  std::string const path =
      directory + "/base-" + lamina::hex_text(lamina::fnv1a_64(fingerprint)) + ".checkpoint";
  if (::access(path.c_str(), F_OK) == 0) {
    decoder::load_checkpoint(path, model, fingerprint);
  } else {
    pretrain<Task>(model, s, base, threads);
    decoder::save_checkpoint(path, model, fingerprint);
  }
  return model;
}

}  // namespace layer_sweep
