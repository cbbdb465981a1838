// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The decoder's attention on a device, forward and backward, with the heads of Qwen3-1.7B: 16 query
// heads and 8 key/value heads of 128, 8 sequences of 1,024 tokens, causal.
//
// TFLOP/s counts what a causal attention has to multiply, half of all pairs: with q columns of
// queries and T tokens a sequence, 2 q T a token forward (scores and mixtures) and 5 q T backward
// (scores again, and four gradients), whatever the kernels do besides. The passes of models with
// float weights multiply on the ordinary cores, those of bf16 on tensor cores.
#include <vector>

#include "benchmarks/device_bench.cuh"
#include "benchmarks/qwen3.hpp"
#include "examples/decoder/batch_attention.hpp"

using namespace lamina;
using namespace lamina::benchmarks;

namespace {

using backend_type = cuda_backend<float>;

constexpr decoder::config shape = qwen3_1_7b;

// Rotated heads of a batch, and what the passes of a model with such weights make of them.
template <class Weight>
struct workload {
  backend_type backend{stream()};
  index_t tokens;
  device_vector<backend_type, float> qkv, mixed, log_sums, d_mixed, d_qkv;
  decoder::device_batch<backend_type> batch;
  decoder::batch_attention<backend_type, Weight> attention{backend};

  workload(index_t sequences, index_t length)
      : tokens(sequences * length),
        qkv(backend, tokens * shape.qkv_width()),
        mixed(backend, tokens * shape.query_width()),
        log_sums(backend, tokens * shape.head_count),
        d_mixed(backend, tokens * shape.query_width()),
        d_qkv(backend, tokens * shape.qkv_width()),
        batch(backend, equal_batch(sequences, length), shape) {
    fill(backend, qkv.view(), 1.7f);  // about the variance of normalised heads
    fill(backend, d_mixed.view(), 1e-3f);
    backend.synchronize();
  }

  static decoder::token_batch equal_batch(index_t sequences, index_t length) {
    decoder::token_batch batch;
    for (index_t s = 0; s <= sequences; ++s) batch.offsets.push_back(s * length);
    for (index_t t = 0; t < sequences * length; ++t) {
      batch.tokens.push_back(static_cast<std::int32_t>(t * 31 % shape.vocab));
      batch.logit_rows.push_back(t);
    }
    return batch;
  }

  decoder::layer_activations<float> activations() {
    decoder::layer_activations<float> a;
    a.qkv = {qkv.view().data, tokens, shape.qkv_width()};
    a.mixed = {mixed.view().data, tokens, shape.query_width()};
    a.log_sums = {log_sums.view().data, tokens, shape.head_count};
    return a;
  }
  void forward() {
    auto const a = activations();
    attention.forward(backend, shape, batch, a.qkv, a.mixed, a.log_sums);
  }
  void backward() {
    attention.backward(backend, shape, batch, activations(),
                       matrix_view<float const>(d_mixed.view().data, tokens, shape.query_width()),
                       {d_qkv.view().data, tokens, shape.qkv_width()});
  }
};

// q T operations are counted `products` times a token. `out` is what f fills.
template <class Weight, class F>
void measure(benchmark::State& state, workload<Weight>& work, double products,
             vector_view<float const> out, F const& f) {
  work.forward();
  f();
  double total = 0;
  for (auto _ : state) {
    double const own = seconds(f);
    state.SetIterationTime(own);
    total += own;
  }
  double const flop = products * static_cast<double>(shape.query_width()) *
                      static_cast<double>(state.range(1)) * static_cast<double>(work.tokens);
  float const last = read_element(work.backend, out, out.size - 1);
  if (!is_finite(last) || last == 0) state.SkipWithError("the result is not a number, or nothing");
  state.counters["TFLOP/s"] = flop * static_cast<double>(state.iterations()) / total / 1e12;
}

template <class Weight>
void forward(benchmark::State& state) {
  workload<Weight> work(state.range(0), state.range(1));
  measure(state, work, 2, work.mixed.view(), [&] { work.forward(); });
}
template <class Weight>
void backward(benchmark::State& state) {
  workload<Weight> work(state.range(0), state.range(1));
  measure(state, work, 5, work.d_qkv.view(), [&] { work.backward(); });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"sequences", "length"})->Args({8, 1024});
  b->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(20);
}
BENCHMARK(forward<bf16>)->Name("attention_forward_bf16")->Apply(shapes);
BENCHMARK(backward<bf16>)->Name("attention_backward_bf16")->Apply(shapes);
BENCHMARK(forward<float>)->Name("attention_forward")->Apply(shapes);
BENCHMARK(backward<float>)->Name("attention_backward")->Apply(shapes);

}  // namespace

int main(int argc, char** argv) { return run(argc, argv); }
