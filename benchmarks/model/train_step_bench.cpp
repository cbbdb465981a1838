// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One training procedure as a program, for scripts that run it beside another trainer: times as
// JSON on standard output. The model has the shape of SmolLM2-135M unless told otherwise.
//
// train_step_bench [--layers full|SELECTION] [--sequences N] [--length N] [--responses N]
//                  [--epochs N] [--reference 0|1] [--prefix-reuse 0|1] [--repetitions N]
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>

#include "benchmarks/model/smollm2.hpp"
#include "benchmarks/model/training.hpp"
#include "lamina/layers/selection_text.hpp"
#include "lamina/layers/selector.hpp"

namespace {

using namespace model_bench;

/// --name value pairs over their defaults.
class arguments {
 public:
  arguments(int argc, char** argv) {
    for (int i = 1; i < argc; i += 2) {
      auto const found = values_.find(argv[i]);
      if (found == values_.end() || i + 1 == argc) {
        throw std::runtime_error(std::string("unknown option or no value: ") + argv[i]);
      }
      found->second = argv[i + 1];
    }
  }
  std::string const& text(char const* name) const { return values_.at(name); }
  index_t number(char const* name) const { return std::stoll(text(name)); }

 private:
  std::map<std::string, std::string> values_{
      {"--layers", "full"}, {"--sequences", "2"},    {"--length", "256"},    {"--responses", "128"},
      {"--epochs", "1"},    {"--prefix-reuse", "0"}, {"--repetitions", "3"}, {"--reference", "0"}};
};

double wall() {
  std::timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

void run(arguments const& a) {
  choose_threads();
  std::string const& layers = a.text("--layers");
  index_t const depth = smollm2.layer_count;
  auto const plan = layers == "full"
                        ? lamina::plan_full(depth)
                        : lamina::plan_backward(depth, lamina::parse_layers(layers, depth));
  procedure const p{.epochs = a.number("--epochs"),
                    .reference = a.number("--reference") != 0,
                    .prefix_reuse = a.number("--prefix-reuse") != 0};
  auto const batch =
      random_batch(smollm2, a.number("--sequences"), a.number("--length"), a.number("--responses"));
  model_type model({}, smollm2);
  fill_weights(model);
  training steps(model, plan, batch, p);
  steps.run();  // memory is allocated by the first one
  std::string wall_times, processor_times;
  for (index_t r = 0; r < a.number("--repetitions"); ++r) {
    double const wall_start = wall();
    std::clock_t const processor_start = std::clock();
    steps.run();
    std::clock_t const processor = std::clock() - processor_start;
    char text[32];
    std::snprintf(text, sizeof text, "%s%.6f", r == 0 ? "" : ", ", wall() - wall_start);
    wall_times += text;
    std::snprintf(text, sizeof text, "%s%.6f", r == 0 ? "" : ", ",
                  static_cast<double>(processor) / CLOCKS_PER_SEC);
    processor_times += text;
  }
  std::printf(
      "{\"trainer\": \"lamina\", \"tokens\": %lld, \"wall_seconds\": [%s], "
      "\"processor_seconds\": [%s]}\n",
      static_cast<long long>(p.epochs * batch.token_count()), wall_times.c_str(),
      processor_times.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(arguments(argc, argv));
  } catch (std::exception const& error) {
    std::fprintf(stderr, "train_step_bench: %s\n", error.what());
    return 1;
  }
}
