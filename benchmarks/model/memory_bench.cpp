// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Peak memory of training against its memory plan: every case runs in a process of its own, whose
// peak resident memory the kernel reports. A model of the shape of SmolLM2-135M.
//
// memory_bench [SEQUENCES [LENGTH]]   2 sequences of 256 tokens if not said otherwise
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "benchmarks/model/smollm2.hpp"
#include "benchmarks/model/training.hpp"
#include "lamina/layers/memory_plan.hpp"
#include "lamina/layers/selector.hpp"

namespace {

using namespace model_bench;

/// A line of /proc/self/status in bytes.
double status_bytes(std::string const& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key, 0) == 0) return 1024 * std::strtod(line.c_str() + key.size() + 1, nullptr);
  }
  return 0;
}

struct measured_case {
  char const* selection;
  lamina::backward_plan plan;
  procedure p;
};

lamina::memory_plan planned(measured_case const& c, decoder::token_batch const& batch,
                            index_t length) {
  return lamina::plan_memory(decoder::transformer_shape(smollm2), c.plan, step_of(batch, c.p),
                             decoder::activation_sizes(smollm2, length));
}

/// Growth of the peak over what the process holds at the start.
double peak_growth(measured_case const& c, decoder::token_batch const& batch) {
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak starts from what is held now
  double const before = status_bytes("VmRSS:");
  model_type model({}, smollm2);
  fill_weights(model);
  training steps(model, c.plan, batch, c.p);
  steps.run();
  return status_bytes("VmHWM:") - before;
}

/// The same in a process of its own.
double in_child(measured_case const& c, decoder::token_batch const& batch) {
  int ends[2];
  if (pipe(ends) != 0) return -1;
  pid_t const child = fork();
  if (child < 0) return -1;
  if (child == 0) {
    double const growth = peak_growth(c, batch);
    _exit(write(ends[1], &growth, sizeof growth) == sizeof growth ? 0 : 1);
  }
  double growth = -1;
  int status = 0;
  bool const arrived = read(ends[0], &growth, sizeof growth) == sizeof growth;
  waitpid(child, &status, 0);
  close(ends[0]);
  close(ends[1]);
  return arrived && status == 0 ? growth : -1;
}

}  // namespace

int main(int argc, char** argv) {
  choose_threads();
  index_t const sequences = argc > 1 ? std::atoi(argv[1]) : 2;
  index_t const length = argc > 2 ? std::atoi(argv[2]) : 256;
  auto const batch = random_batch(smollm2, sequences, length, length / 2);
  index_t const depth = smollm2.layer_count;
  auto const one = lamina::plan_backward(depth, lamina::single_layer(depth / 2));
  auto const middle = lamina::plan_backward(depth, lamina::middle_layers(depth, 10));
  procedure const with_reference{.epochs = 2, .reference = true};
  procedure const with_cache{.epochs = 2, .reference = true, .prefix_reuse = true};
  measured_case const cases[] = {{"full", lamina::plan_full(depth), {}},
                                 {"full", lamina::plan_full(depth), with_reference},
                                 {"middle layer", one, {}},
                                 {"middle layer", one, with_reference},
                                 {"middle layer", one, with_cache},
                                 {"middle 10", middle, {}},
                                 {"middle 10", middle, with_reference},
                                 {"middle 10", middle, with_cache}};
  std::printf("%lld tokens, %lld logit rows; MB\n", static_cast<long long>(batch.token_count()),
              static_cast<long long>(batch.logit_rows.size()));
  std::printf("%-14s %-10s %-7s %9s %9s %7s\n", "trained", "reference", "prefix", "planned", "peak",
              "ratio");
  bool within = true;
  std::vector<double> peaks;
  for (measured_case const& c : cases) {
    double const plan = static_cast<double>(planned(c, batch, length).peak());
    double const peak = in_child(c, batch);
    peaks.push_back(peak);
    std::printf("%-14s %-10s %-7s %9.1f %9.1f %7.3f\n", c.selection, c.p.reference ? "yes" : "no",
                c.p.prefix_reuse ? "cached" : "again", plan * 1e-6, peak * 1e-6, peak / plan);
    std::fflush(stdout);
    within = within && peak > 0.9 * plan && peak < 1.1 * plan;
  }
  auto const cached = planned(cases[4], batch, length);
  std::printf(
      "reference and old policy of the middle layer: peak + %.1f MB; the layer's weights %.1f MB, "
      "prefix cache %.1f MB\n",
      (peaks[4] - peaks[2]) * 1e-6, static_cast<double>(cached.weight_sync) * 1e-6,
      static_cast<double>(cached.prefix_cache) * 1e-6);
  return within ? 0 : 1;
}
