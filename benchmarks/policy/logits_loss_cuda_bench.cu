// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The passes over logits on a device, as multiples of the time a copy of the same logits takes in
// the same run. Counters: `copies` is that multiple, `floor` the least it could be if memory were
// all: reading and writing once is 1, reading alone 0.5.
#include <vector>

#include "benchmarks/device_bench.cuh"
#include "lamina/policy/logits_loss.hpp"
#include "lamina/policy/presets.hpp"

using namespace lamina;
using lamina::benchmarks::fill_body;
using lamina::benchmarks::seconds;
using lamina::benchmarks::stream;

namespace {

using backend_type = cuda_backend<float>;

// A batch of sequences of 1,024 tokens in device memory.
template <storage_scalar T>
struct workload {
  backend_type backend{stream()};
  index_t tokens, vocab;
  device_vector<backend_type, T> logits, pristine;
  device_vector<backend_type, index_t> offsets;
  device_vector<backend_type, std::int32_t> token_ids;
  device_vector<backend_type, float> old_log_probs, advantages, log_probs, d_log_probs, entropies,
      d_entropies;

  workload(index_t tokens_, index_t vocab_)
      : tokens(tokens_),
        vocab(vocab_),
        logits(backend, tokens * vocab),
        pristine(backend, tokens * vocab),
        offsets(backend, tokens / 1024 + 1),
        token_ids(backend, tokens),
        old_log_probs(backend, tokens),
        advantages(backend, tokens / 1024),
        log_probs(backend, tokens),
        d_log_probs(backend, tokens),
        entropies(backend, tokens),
        d_entropies(backend, tokens) {
    std::vector<index_t> starts;
    for (index_t t = 0; t <= tokens; t += 1024) starts.push_back(t);
    std::vector<std::int32_t> ids;
    for (index_t t = 0; t < tokens; ++t) ids.push_back(static_cast<std::int32_t>(t * 31 % vocab));
    std::vector<float> signs;
    for (index_t s = 0; s < tokens / 1024; ++s) signs.push_back(s % 2 == 0 ? 1.0f : -1.0f);
    offsets.assign(backend, starts);
    token_ids.assign(backend, ids);
    advantages.assign(backend, signs);
    backend.executor().run(tokens, fill_body<T>{{pristine.view().data, tokens, vocab}, 2.0f});
    // A first update: no token is clipped, every row gets a gradient.
    backend.executor().run(tokens,
                           token_log_prob_body<false, T>{{pristine.view().data, tokens, vocab},
                                                         token_ids.view().data,
                                                         nullptr,
                                                         1.0f,
                                                         old_log_probs.view(),
                                                         {}});
    reset();
    backend.synchronize();
  }
  std::size_t bytes() const { return static_cast<std::size_t>(tokens * vocab) * sizeof(T); }
  void reset() {
    backend.copy(logits.view().data, pristine.view().data, bytes());
    // What policy_logits_body wants to know of each token's sequence.
    static std::vector<float> active;
    active.assign(static_cast<std::size_t>(tokens), 1024.0f);
    d_log_probs.assign(backend, active);
  }
  matrix_view<T> matrix() { return {logits.view().data, tokens, vocab}; }
  policy_batch<float> batch() {
    policy_batch<float> b;
    b.offsets = offsets.view();
    b.token_ids = token_ids.view();
    b.old_log_probs = old_log_probs.view();
    b.advantages = advantages.view();
    b.denominators = {.sequences = tokens / 1024, .tokens = tokens};
    return b;
  }
};

// Times `f` against a copy of the logits, alternately, so that both see the same clock.
template <class T, class F>
void against_copy(benchmark::State& state, workload<T>& work, double floor, F const& f) {
  double copies = 0, total = 0;
  for (auto _ : state) {
    work.reset();
    double const copy = seconds([&] {
      work.backend.copy(work.logits.view().data, work.pristine.view().data, work.bytes());
    });
    double const own = seconds(f);
    state.SetIterationTime(own);
    copies += copy;
    total += own;
  }
  state.counters["copies"] = total / copies;
  state.counters["floor"] = floor;
  state.counters["TB/s"] = 2 * floor * static_cast<double>(work.bytes()) *
                           static_cast<double>(state.iterations()) / total / 1e12;
}

template <class T>
void logits_to_gradients(benchmark::State& state) {
  workload<T> work(state.range(0), state.range(1));
  bool const with_entropy = state.range(2) != 0;
  against_copy(state, work, 1.0, [&] {
    policy_outputs<float> outputs{.log_probs = work.log_probs.view(),
                                  .d_log_probs = work.d_log_probs.view()};
    if (with_entropy) {
      outputs.entropies = work.entropies.view();
      outputs.d_entropies = work.d_entropies.view();
      work.backend.executor().run(work.tokens, policy_logits_body<true, T, grpo>{
                                                   work.matrix(), work.batch(), outputs, grpo{}});
    } else {
      work.backend.executor().run(work.tokens, policy_logits_body<false, T, grpo>{
                                                   work.matrix(), work.batch(), outputs, grpo{}});
    }
  });
}

template <class T>
void log_probs(benchmark::State& state) {
  workload<T> work(state.range(0), state.range(1));
  against_copy(state, work, 0.5, [&] {
    work.backend.executor().run(
        work.tokens,
        token_log_prob_body<false, T>{
            work.matrix(), work.token_ids.view().data, nullptr, 1.0f, work.log_probs.view(), {}});
  });
}

void gradient_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"tokens", "vocab", "entropy"})->UseManualTime()->Unit(benchmark::kMillisecond);
  for (int const vocab : {32768, 151936}) {
    for (int const entropy : {0, 1}) b->Args({8192, vocab, entropy});
  }
}
void log_prob_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"tokens", "vocab"})->UseManualTime()->Unit(benchmark::kMillisecond);
  for (int const vocab : {32768, 151936}) b->Args({8192, vocab});
}

BENCHMARK_TEMPLATE(logits_to_gradients, bf16)->Apply(gradient_shapes);
BENCHMARK_TEMPLATE(logits_to_gradients, float)->Apply(gradient_shapes);
BENCHMARK_TEMPLATE(log_probs, bf16)->Apply(log_prob_shapes);
BENCHMARK_TEMPLATE(log_probs, float)->Apply(log_prob_shapes);

}  // namespace

int main(int argc, char** argv) { return lamina::benchmarks::run(argc, argv); }
