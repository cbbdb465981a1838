// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The hash of a model, and a patch going in and out of it, in bytes of weights a second. The layers
// are those of a model of 135M parameters: 30 of 3.5M each.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "lamina/io/layer_patch.hpp"

namespace {

using lamina::bf16;
using lamina::index_t;

class model {
 public:
  explicit model(index_t layer_count) {
    for (index_t layer = 0; layer < layer_count; ++layer) {
      names_.push_back("layers." + std::to_string(layer));
      weights_.emplace_back(3'540'000, bf16(0.5f));
    }
  }
  std::vector<lamina::parameter_view<bf16>> parameters() {
    std::vector<lamina::parameter_view<bf16>> views(names_.size());
    for (std::size_t i = 0; i < views.size(); ++i) {
      views[i].name = names_[i];
      views[i].weight = weights_[i];
    }
    return views;
  }
  index_t bytes() const {
    return static_cast<index_t>(weights_.size() * weights_[0].size() * sizeof(bf16));
  }

 private:
  std::vector<std::string> names_;
  std::vector<std::vector<bf16>> weights_;
};

void hash(benchmark::State& state) {
  model m(state.range(0));
  for ([[maybe_unused]] auto iteration : state) {
    benchmark::DoNotOptimize(lamina::model_hash(m.parameters()).value());
  }
  state.SetBytesProcessed(state.iterations() * m.bytes());
}

void apply_and_revert(benchmark::State& state) {
  model m(state.range(0));
  lamina::model_hash const base(m.parameters());
  m.parameters()[0].weight[0] = bf16(1.f);
  lamina::layer_patch<bf16> patch(base, m.parameters());
  m.parameters()[0].weight[0] = bf16(0.5f);
  for ([[maybe_unused]] auto iteration : state) {
    patch.apply(m.parameters());
    patch.revert(m.parameters());
  }
  state.SetBytesProcessed(state.iterations() * 2 * m.bytes());
}

BENCHMARK(hash)->ArgName("layers")->Arg(1)->Arg(30)->Unit(benchmark::kMillisecond);
BENCHMARK(apply_and_revert)->ArgName("layers")->Arg(30)->Unit(benchmark::kMillisecond);

}  // namespace
