// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One step of sampling, a new token for every row, against the matrix products it cannot do
// without: a model of the shape of SmolLM2-135M whose cache holds sequences of some length.
//
// over_products  time of the forward step / time of its products alone, each issued once for all
//                rows with the same GEMM
// drawing        time of drawing the tokens / time of the forward step
#include <benchmark/benchmark.h>

#include <cmath>
#include <string>

#include "benchmarks/model/smollm2.hpp"
#include "examples/decoder/cached_forward.hpp"
#include "examples/decoder/draw.hpp"

namespace {

using namespace model_bench;
using decoder::layer_tensor;
using lamina::matrix_view;
using lamina::transpose;

/// Rows whose cache holds `seen` tokens.
class decoding {
 public:
  decoding(index_t rows, index_t seen)
      : model_({}, smollm2), forward_(model_.backend()), memory_(model_.backend()) {
    fill_weights(model_);
    forward_.reset(model_, rows, seen + 1);
    std::vector<std::int32_t> tokens;
    std::vector<index_t> row, position, wanted{seen - 1};
    for (index_t p = 0; p < seen; ++p) {
      tokens.push_back(static_cast<std::int32_t>(17 * p % smollm2.vocab));
      row.push_back(0);
      position.push_back(p);
    }
    forward_.run(model_, tokens, {row, position}, wanted);
    for (index_t r = 1; r < rows; ++r) forward_.copy_row(0, r, seen);
    for (index_t r = 0; r < rows; ++r) {
      tokens_.push_back(static_cast<std::int32_t>(31 * r % smollm2.vocab));
      rows_.push_back(r);
      positions_.push_back(seen);
    }
    drawn_.resize(tokens_.size());
    log_probs_.resize(tokens_.size());
    log_kept_.resize(tokens_.size());

    index_t const f = smollm2.ffn_width, d = smollm2.width;
    memory_.reset(model_.backend(), rows * (2 * d + 3 * f + smollm2.vocab));
    narrow_ = memory_.take(rows, d);
    stream_ = memory_.take(rows, d);
    wide_ = memory_.take(rows, 2 * f);
    activated_ = memory_.take(rows, f);
    head_ = memory_.take(rows, smollm2.vocab);
    std::fill(narrow_.data, narrow_.data + rows * d, 0.1f);
    std::fill(activated_.data, activated_.data + rows * f, 0.1f);
  }

  /// A new token for every row at the same position, which is written over each time.
  void step() { logits_ = forward_.run(model_, tokens_, {rows_, positions_}, rows_); }

  void products() {
    for (index_t layer = 0; layer < smollm2.layer_count; ++layer) {
      auto const& weights = model_.block(layer);
      index_t const qkv = smollm2.qkv_width();
      project(narrow_, weights.stacked(layer_tensor::query, layer_tensor::value),
              {wide_.data, wide_.rows, qkv, wide_.stride});
      project(narrow_, weights.weight(layer_tensor::attention_output), stream_);
      project(narrow_, weights.stacked(layer_tensor::gate, layer_tensor::up), wide_);
      project(activated_, weights.weight(layer_tensor::down), stream_);
    }
    project(narrow_, model_.head(), head_);
    benchmark::ClobberMemory();
  }

  void draw(decoder::sampling_options const& options) {
    model_.backend().executor().run(
        static_cast<index_t>(rows_.size()),
        decoder::draw_tokens<float>{options, logits_, 1, rows_, positions_, drawn_, log_probs_,
                                    log_kept_});
  }

 private:
  void project(matrix_view<float const> x, matrix_view<float const> w, matrix_view<float> y) const {
    model_.backend().gemm(transpose::no, transpose::yes, 1.0f, x, w, 0.0f, y);
  }

  model_type model_;
  decoder::cached_forward<backend_type> forward_;
  decoder::arena<backend_type> memory_;
  std::vector<std::int32_t> tokens_, drawn_;
  std::vector<index_t> rows_, positions_;
  std::vector<float> log_probs_, log_kept_;
  matrix_view<float> narrow_, stream_, wide_, activated_, head_, logits_;
};

void decode(benchmark::State& state) {
  decoding model(state.range(0), state.range(1));
  auto const draw = [&] { model.draw({.seed = 1}); };
  model.step();
  model.products();
  draw();
  std::vector<double> step_times, product_times, draw_times;
  for ([[maybe_unused]] auto iteration : state) {
    product_times.push_back(seconds_of([&] { model.products(); }));
    step_times.push_back(seconds_of([&] { model.step(); }));
    draw_times.push_back(seconds_of(draw));
    state.SetIterationTime(step_times.back() + draw_times.back());
  }
  double const step = median(step_times);
  state.counters["over_products"] = step / median(product_times);
  state.counters["drawing"] = median(draw_times) / step;
  state.counters["tokens/s"] = static_cast<double>(state.range(0)) / (step + median(draw_times));
}
BENCHMARK(decode)
    ->ArgNames({"rows", "seen"})
    ->ArgsProduct({{64}, {64, 256}})
    ->Args({16, 128})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(15);

}  // namespace

int main(int argc, char** argv) {
  choose_threads();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
