// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// AdamW against the memory it has to move: every iteration also copies as many bytes with memcpy,
// so that the ratio holds on a machine whose speed drifts.
//
// of_memcpy  time of the copy / time of the step, both for the same number of bytes read and
//            written; 1 is the speed of memcpy
#include <benchmark/benchmark.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

#include "examples/support/gemm.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/optim/sgd.hpp"

namespace {

using lamina::index_t;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class T>
struct tensors {
  explicit tensors(index_t elements)
      : weight(static_cast<std::size_t>(elements), T(0.5)),
        gradient(static_cast<std::size_t>(elements)) {
    for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] = T(1e-3) * T(i % 97) - T(0.04);
  }
  std::vector<lamina::parameter_view<T>> parameters() {
    return {{.name = "layers.0.mlp.up.weight", .layer = 0, .weight = weight, .gradient = gradient}};
  }
  std::vector<T> weight, gradient;
};

// Runs `step`, which moves `bytes` bytes, beside a memcpy that moves as many.
template <class Step>
void against_memcpy(benchmark::State& state, index_t bytes, Step step) {
  std::vector<char> from(static_cast<std::size_t>(bytes / 2), 1), to(from.size());
  double step_time = 0, copy_time = 0;
  for ([[maybe_unused]] auto iteration : state) {
    double const begin = seconds();
    step();
    double const middle = seconds();
    std::memcpy(to.data(), from.data(), from.size());
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
    double const end = seconds();
    step_time += middle - begin;
    copy_time += end - middle;
    state.SetIterationTime(middle - begin);
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * bytes);
  state.counters["of_memcpy"] = copy_time / step_time;
}

// The loop of a textbook, one tensor, no clipping.
template <class T>
void textbook(std::vector<T>& w, std::vector<T> const& g, std::vector<T>& m, std::vector<T>& v,
              double t) {
  T const beta1 = T(0.9), beta2 = T(0.999), rate = T(1e-5), epsilon = T(1e-8), decay = T(0.01);
  T const correction1 = T(1 - std::pow(0.9, t)), correction2 = T(1 - std::pow(0.999, t));
  for (std::size_t i = 0; i < w.size(); ++i) {
    w[i] -= rate * decay * w[i];
    m[i] = beta1 * m[i] + (1 - beta1) * g[i];
    v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
    w[i] -= rate * (m[i] / correction1) / (std::sqrt(v[i] / correction2) + epsilon);
  }
}

// Reads weight, gradient and both moments, writes weight and both moments.
template <class T>
void adamw_textbook_loop(benchmark::State& state) {
  tensors<T> host(state.range(0));
  std::vector<T> first(host.weight.size()), second(host.weight.size());
  double t = 0;
  against_memcpy(state, 7 * state.range(0) * index_t{sizeof(T)},
                 [&] { textbook(host.weight, host.gradient, first, second, ++t); });
}

// The same, and the gradient once more for its norm.
template <class T>
void adamw_step(benchmark::State& state) {
  tensors<T> host(state.range(0));
  lamina::adamw optimizer(examples::chosen_backend<T>{}, host.parameters(),
                          {.learning_rate = 1e-5, .clip_norm = 1.0});
  against_memcpy(state, 8 * state.range(0) * index_t{sizeof(T)}, [&] { optimizer.step(); });
}

template <class T>
void sgd_momentum_step(benchmark::State& state) {
  tensors<T> host(state.range(0));
  lamina::sgd optimizer(examples::chosen_backend<T>{}, host.parameters(),
                        {.learning_rate = 1e-5, .momentum = 0.9, .clip_norm = 1.0});
  against_memcpy(state, 6 * state.range(0) * index_t{sizeof(T)}, [&] { optimizer.step(); });
}

template <class T>
void gradient_norm(benchmark::State& state) {
  tensors<T> host(state.range(0));
  auto const parameters = host.parameters();
  against_memcpy(state, state.range(0) * index_t{sizeof(T)}, [&] {
    benchmark::DoNotOptimize(lamina::gradient_norm(examples::chosen_backend<T>{}, parameters));
  });
}

// One size that fits in a shared cache and one that does not.
void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("elements")->Arg(1 << 18)->Arg(1 << 23)->UseManualTime();
}

BENCHMARK(adamw_textbook_loop<float>)->Apply(sizes);
BENCHMARK(adamw_step<float>)->Apply(sizes);
BENCHMARK(adamw_textbook_loop<double>)->Apply(sizes);
BENCHMARK(adamw_step<double>)->Apply(sizes);
BENCHMARK(sgd_momentum_step<float>)->Apply(sizes);
BENCHMARK(gradient_norm<float>)->Apply(sizes);

}  // namespace
