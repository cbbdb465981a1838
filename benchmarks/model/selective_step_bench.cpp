// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a selection saves: training on a batch against full training, measured and as the operations
// predict it, a model of the shape of SmolLM2-135M. Repetitions of all cases are interleaved, so
// that they see the same machine; the table at the end is of medians.
//
//   step             one forward, loss, backward and AdamW step
//   one epoch        log-probs of a reference, then one epoch
//   two epochs       log-probs of a reference, then two epochs
//   ... +cache       the same from a prefix cache; without one, the frozen prefix is run every time
#include <benchmark/benchmark.h>

#include <cstdio>
#include <memory>
#include <string>

#include "benchmarks/model/smollm2.hpp"
#include "benchmarks/model/training.hpp"
#include "lamina/layers/memory_plan.hpp"
#include "lamina/layers/selector.hpp"

namespace {

using namespace model_bench;
using lamina::backward_plan;

constexpr index_t depth = smollm2.layer_count;

struct selection {
  char const* name;
  backward_plan plan;
};
struct mode {
  char const* name;
  procedure what;
};

// Full training has no frozen prefix, so it goes without a cache.
constexpr mode step{"step", {}};
constexpr mode two_epochs{"two epochs", {.epochs = 2, .reference = true}};
constexpr mode one_epoch{"one epoch", {.reference = true}};
constexpr mode one_epoch_cached{"one epoch+cache", {.reference = true, .prefix_reuse = true}};
constexpr mode two_epochs_cached{"two epochs+cache",
                                 {.epochs = 2, .reference = true, .prefix_reuse = true}};

struct measured_case {
  std::string selection;
  mode how;
  backward_plan plan;
  std::vector<double> times;

  std::string name() const { return std::string(how.name) + "/" + selection; }
};

double predicted(measured_case const& c, decoder::token_batch const& batch) {
  return lamina::plan_memory(decoder::transformer_shape(smollm2), c.plan,
                             step_of(batch, c.how.what), {})
      .speed_up();
}

void print_table(std::vector<measured_case> const& cases, decoder::token_batch const& batch) {
  std::printf("\n%-16s %-14s %9s %9s %9s %7s\n", "", "trained", "seconds", "measured", "predicted",
              "ratio");
  double full = 0;  // of the cases that follow
  for (measured_case const& c : cases) {
    if (c.times.empty()) continue;
    double const time = median(c.times);
    if (c.selection == "full") full = time;
    double const measured = full / time, expected = predicted(c, batch);
    std::printf("%-16s %-14s %9.3f %8.2fx %8.2fx %7.3f\n", c.how.name, c.selection.c_str(), time,
                measured, expected, measured / expected);
  }
}

}  // namespace

int main(int argc, char** argv) {
  choose_threads();
  auto const batch = random_batch(smollm2, 2, 256, 128);
  model_type model({}, smollm2);
  fill_weights(model);

  auto const one = [](index_t layer) {
    return lamina::plan_backward(depth, lamina::single_layer(layer));
  };
  selection const selections[] = {
      {"first", one(0)},
      {"quarter", one(depth / 4)},
      {"middle", one(depth / 2)},
      {"three quarters", one(3 * depth / 4)},
      {"last", one(depth - 1)},
      {"middle 10", lamina::plan_backward(depth, lamina::middle_layers(depth, 10))},
      {"all layers", lamina::plan_backward(depth, lamina::all_layers(depth))}};
  std::vector<measured_case> cases;
  auto const add = [&](char const* name, mode const& how, backward_plan const& plan) {
    cases.push_back({name, how, plan, {}});
  };
  add("full", step, lamina::plan_full(depth));
  for (selection const& s : selections) add(s.name, step, s.plan);
  add("full", one_epoch, lamina::plan_full(depth));
  add("middle", one_epoch_cached, selections[2].plan);
  add("full", two_epochs, lamina::plan_full(depth));
  add("middle", two_epochs, selections[2].plan);
  add("middle 10", two_epochs, selections[5].plan);
  for (selection const& s : selections) add(s.name, two_epochs_cached, s.plan);

  std::vector<std::unique_ptr<training<backend_type>>> trainings(cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    benchmark::RegisterBenchmark(cases[i].name().c_str(),
                                 [&, i](benchmark::State& state) {
                                   auto& run = trainings[i];
                                   measured_case& c = cases[i];
                                   if (run == nullptr) {
                                     run = std::make_unique<training<backend_type>>(
                                         model, c.plan, batch, c.how.what);
                                   }
                                   for ([[maybe_unused]] auto iteration : state) {
                                     c.times.push_back(seconds_of([&] { run->run(); }));
                                     state.SetIterationTime(c.times.back());
                                   }
                                 })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond)
        ->Iterations(1);
  }
  // Memory grows to its largest before anything is timed.
  training(model, lamina::plan_full(depth), batch, {}).run();

  std::vector<char*> arguments(argv, argv + argc);
  std::string repeat = "--benchmark_repetitions=3";
  std::string interleave = "--benchmark_enable_random_interleaving=true";
  arguments.insert(arguments.begin() + 1, {repeat.data(), interleave.data()});
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  benchmark::RunSpecifiedBenchmarks();
  print_table(cases, batch);
}
