// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An optimizer step with clipping, and the gradient norm alone, over the tensors of layers of
// Qwen3-1.7B on a device, beside a copy of as many bytes, taken in the same iterations.
//
// A step reads the gradient and reads and writes the weight, two moments and, over bf16, a float
// master: 30 bytes an element of bf16, 28 of float. Clipping reads the gradient once more before.
// Counters: `copies` is the time as a multiple of a copy that reads and writes, together, what the
// step moves without the norm; `floor` is what that would be at the speed of the copy.
#include <string>
#include <vector>

#include "benchmarks/device_bench.cuh"
#include "benchmarks/qwen3.hpp"
#include "examples/decoder/tensors.hpp"
#include "lamina/optim/adamw.hpp"

using namespace lamina;
using namespace lamina::benchmarks;

namespace {

using backend_type = cuda_backend<float>;

// Weights and gradients of some layers.
template <storage_scalar T>
struct tensors {
  std::vector<device_vector<backend_type, T>> memory;
  std::vector<std::string> names;
  std::vector<parameter_view<T>> parameters;
  double elements = 0;

  tensors(backend_type const& backend, index_t layer_count) {
    auto const specs = decoder::layer_tensor_specs(qwen3_1_7b);
    names.reserve(static_cast<std::size_t>(layer_count) * specs.size());  // views point into it
    for (index_t layer = 0; layer < layer_count; ++layer) {
      for (auto const& spec : specs) {
        if (spec.rows == 0) continue;
        index_t const size = spec.rows * spec.cols;
        names.push_back(std::to_string(layer) + "." + spec.name);
        memory.emplace_back(backend, size);
        vector_view<T> const weight = memory.back().view();
        memory.emplace_back(backend, size);
        vector_view<T> const gradient = memory.back().view();
        fill(backend, weight, 0.04f, layer);
        fill(backend, gradient, 1.0f, layer + 1);  // a norm far above what it is clipped to
        parameters.push_back({names.back(), layer, spec.role, weight, gradient, spec.decays()});
        elements += static_cast<double>(size);
      }
    }
  }
};

// Times `f`, which has to move `bytes` and `more` besides, against a copy that moves `bytes`.
template <class F>
void against_copy(benchmark::State& state, backend_type const& backend, double bytes, double more,
                  F const& f) {
  auto const half = static_cast<std::size_t>(bytes / 2);
  auto const from = backend.make_bytes(half), to = backend.make_bytes(half);
  auto const copy_all = [&] { backend.copy(to.data(), from.data(), half); };
  copy_all();
  f();
  double copies = 0, total = 0;
  for (auto _ : state) {
    copies += seconds(copy_all);
    double const own = seconds(f);
    state.SetIterationTime(own);
    total += own;
  }
  state.counters["copies"] = total / copies;
  state.counters["floor"] = (bytes + more) / bytes;
  state.counters["TB/s"] = (bytes + more) * static_cast<double>(state.iterations()) / total / 1e12;
}

template <storage_scalar T>
void adamw_step(benchmark::State& state) {
  backend_type const backend(stream());
  tensors<T> const trained(backend, state.range(0));
  adamw<backend_type, T> optimizer(backend, trained.parameters,
                                   {.learning_rate = 1e-5, .clip_norm = 1.0});
  double const each = std::same_as<T, float> ? 28 : 30;
  against_copy(state, backend, trained.elements * each, trained.elements * sizeof(T),
               [&] { optimizer.step(); });
  step_status const status = optimizer.read_status();
  if (status.skipped || !(status.clip_scale < 1)) state.SkipWithError("nothing was clipped");
}

template <storage_scalar T>
void gradient_norms(benchmark::State& state) {
  backend_type const backend(stream());
  tensors<T> const trained(backend, state.range(0));
  gradient_norm_meter<backend_type, T> meter(backend, trained.parameters);
  against_copy(state, backend, trained.elements * sizeof(T), 0, [&] { meter.run(); });
  if (!(meter.read().norm > 0)) state.SkipWithError("the norm is not positive");
}

void layer_counts(benchmark::internal::Benchmark* b) {
  b->ArgName("layers")->Arg(1)->Arg(10);
  b->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(20);
}
BENCHMARK_TEMPLATE(adamw_step, bf16)->Apply(layer_counts);
BENCHMARK_TEMPLATE(adamw_step, float)->Apply(layer_counts);
BENCHMARK_TEMPLATE(gradient_norms, bf16)->Apply(layer_counts);
BENCHMARK_TEMPLATE(gradient_norms, float)->Apply(layer_counts);

}  // namespace

int main(int argc, char** argv) { return run(argc, argv); }
