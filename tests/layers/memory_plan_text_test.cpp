// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/memory_plan_text.hpp"

#include <doctest/doctest.h>

#include "lamina/layers/selector.hpp"
#include "tests/layers/published_shapes.hpp"

using namespace lamina;
using namespace lamina::testing;

TEST_CASE("memory_plan_text: one line an item, beside full training, zeros left out") {
  // [memory_plan]
  auto const plan = plan_backward(30, single_layer(15));
  step_shape const step{.sequences = equal_sequences(16, 256),
                        .logit_rows = 16 * 128,
                        .epochs = 2,
                        .reference = true,
                        .prefix_reuse = true};
  auto const host = lean_activations(smollm2_135m);
  memory_plan const planned = plan_memory(smollm2_135m, plan, step, host, bf16_formats);
  memory_plan const full = plan_memory(smollm2_135m, plan_full(30), step, host, bf16_formats);
  std::string const table = to_text(planned, full);
  // [/memory_plan]
  CHECK("\n" + table == R"(
                                    plan          full
parameters                     134515008     134515008
trained                          3540096     134515008
weights                        269.03 MB     269.03 MB
gradients                        7.08 MB     269.03 MB
moments                         28.32 MB       1.08 GB
masters                         14.16 MB     538.06 MB
reference                        7.08 MB     269.03 MB
prefix cache                     4.72 MB           0 B
saved activations              732.02 MB       2.08 GB
working activations             66.85 MB      66.85 MB
logits                         201.33 MB     201.33 MB
activation gradients            59.77 MB      59.77 MB
peak                             1.39 GB       4.83 GB
weight sync                      7.08 MB     269.03 MB
forward FLOP                      2.16 T        3.07 T
activation gradient FLOP          1.19 T        2.15 T
weight gradient FLOP             57.98 G        1.97 T
speed-up                           2.11x         1.00x
)");
}

TEST_CASE("memory_plan_text: one column, and units that fit the number") {
  transformer_shape const tiny{.layer_count = 1,
                               .width = 2,
                               .query_width = 2,
                               .key_width = 2,
                               .head_count = 1,
                               .ffn_width = 2,
                               .vocab = 3};
  memory_plan m = plan_memory(tiny, plan_backward(1, single_layer(0)),
                              {.sequences = equal_sequences(1, 1), .logit_rows = 1}, {});
  m.weights = 999;
  m.gradients = 1000;
  m.moments = 999'400'000'000;
  m.masters = 5'000'000'000'000'000;
  std::string const table = to_text(m);
  CHECK(table.find("weights                            999 B\n") != std::string::npos);
  CHECK(table.find("gradients                        1.00 kB\n") != std::string::npos);
  CHECK(table.find("moments                        999.40 GB\n") != std::string::npos);
  CHECK(table.find("masters                       5000.00 TB\n") != std::string::npos);
  CHECK(table.find("rollout cache") == std::string::npos);
}
