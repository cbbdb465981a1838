// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Time of a selective step of the reference host against the formulas for it: every iteration runs
// the full step and the planned one in turn, so that both see the same machine.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "examples/decoder/transformer.hpp"
#include "examples/support/gemm.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/optim/adamw.hpp"

namespace {

using lamina::backward_plan;
using lamina::index_t;
using lamina::layer_set;
using backend_type = examples::chosen_backend<float>;

// Matrix products dominate: 12 layers, width 256, sequences of 128 tokens.
constexpr decoder::config shape{.layer_count = 12,
                                .width = 256,
                                .head_count = 4,
                                .kv_head_count = 4,
                                .head_width = 64,
                                .ffn_width = 768,
                                .vocab = 256};
constexpr index_t length = 128;
constexpr index_t sequences = 4;

/// Floating-point operations per token of a step, all logits wanted, embeddings and head frozen.
///
///   attention = 2 q T,  p = 2 d q + 2 d k + 3 d f
///   forward  L (2 p + attention) + 2 V d
///   dX       (L - l0) (2 p + 2.5 attention) + 2 V d - 2 d (q + 2 k)
///   dW       2 p |S|
struct step_cost {
  static constexpr double d = shape.width, q = shape.query_width(), k = shape.key_width();
  static constexpr double f = shape.ffn_width, v = shape.vocab, depth = shape.layer_count;
  static constexpr double p = 2 * d * q + 2 * d * k + 3 * d * f;
  static constexpr double attention = 2 * q * static_cast<double>(length);

  static double of(layer_set const& layers) {
    double const above = depth - static_cast<double>(layers.lowest());
    double const forward = depth * (2 * p + attention) + 2 * v * d;
    double const d_input = above * (2 * p + 2.5 * attention) + 2 * v * d - 2 * d * (q + 2 * k);
    return forward + d_input + 2 * p * static_cast<double>(layers.size());
  }
};

decoder::token_batch batch() {
  decoder::token_batch b;
  b.offsets.push_back(0);
  for (index_t s = 0; s < sequences; ++s) {
    for (index_t t = 0; t < length; ++t) {
      b.logit_rows.push_back(b.token_count());
      b.tokens.push_back(static_cast<std::int32_t>((s * 31 + t * 17) % shape.vocab));
    }
    b.offsets.push_back(b.token_count());
  }
  return b;
}

/// A model, and the optimizer of one plan.
class step {
 public:
  explicit step(layer_set const& layers)
      : plan_(lamina::plan_backward(shape.layer_count, layers)),
        model_({}, shape),
        optimizer_(model_.backend(), trained()) {
    model_.initialize(1);
  }

  /// Seconds of one forward and backward, or of one whole train step.
  double run(decoder::token_batch const& tokens, bool update) {
    auto const start = std::chrono::steady_clock::now();
    auto const logits = model_.forward(tokens, plan_);
    model_.backward(logits, plan_);  // the loss is half the sum of squares: its gradient is free
    if (update) optimizer_.step(1e-6);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  std::vector<lamina::parameter_view<float>> trained() {
    model_.prepare(plan_);
    return lamina::trained_parameters(model_, plan_);
  }

  backward_plan plan_;
  decoder::transformer<backend_type> model_;
  lamina::adamw<backend_type, float> optimizer_;
};

double median(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void selective_step(benchmark::State& state, layer_set const& layers, bool update) {
  auto const tokens = batch();
  step full(lamina::all_layers(shape.layer_count)), selected(layers);
  full.run(tokens, update);  // memory is allocated by the first step
  selected.run(tokens, update);
  std::vector<double> full_times, times;
  for (auto _ : state) {
    full_times.push_back(full.run(tokens, update));
    times.push_back(selected.run(tokens, update));
    state.SetIterationTime(times.back());
  }
  double const measured = median(full_times) / median(times);
  double const predicted =
      step_cost::of(lamina::all_layers(shape.layer_count)) / step_cost::of(layers);
  double const flops = step_cost::of(layers) * static_cast<double>(tokens.token_count());
  state.counters["measured"] = measured;
  state.counters["predicted"] = predicted;
  state.counters["ratio"] = measured / predicted;
  state.counters["GFLOP/s"] = flops / median(times) * 1e-9;
}

}  // namespace

int main(int argc, char** argv) {
  index_t const depth = shape.layer_count;
  struct selection {
    char const* name;
    layer_set layers;
  };
  selection const selections[] = {
      {"first", lamina::single_layer(0)},        {"middle", lamina::single_layer(depth / 2)},
      {"last", lamina::single_layer(depth - 1)}, {"middle_4", lamina::middle_layers(depth, 4)},
      {"all", lamina::all_layers(depth)},
  };
  for (bool const update : {false, true}) {
    for (selection const& s : selections) {
      std::string const name = std::string(update ? "train_step/" : "forward_backward/") + s.name;
      benchmark::RegisterBenchmark(name.c_str(), selective_step, s.layers, update)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond)
          ->MinTime(1.0);
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
