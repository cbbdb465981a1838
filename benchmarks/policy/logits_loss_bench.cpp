// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The logits form of GRPO beside two ceilings taken in the same iterations: a memcpy of the logits,
// and the textbook loop with std::exp.
//
// ns_per_logit   time of the logits form per logit and thread
// over_textbook  time of the textbook loop / time of the logits form
// of_memcpy      time of a memcpy of the logits (one read, one write), on as many threads / time of
//                the logits form
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>
#include <type_traits>
#include <vector>

#include "examples/support/gemm.hpp"
#include "lamina/policy/logits_loss.hpp"
#include "lamina/policy/presets.hpp"

namespace {

using lamina::index_t;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class T>
struct rollouts {
  using compute = lamina::compute_t<T>;

  rollouts(index_t tokens, index_t vocab)
      : logits(static_cast<std::size_t>(tokens * vocab)),
        token_ids(static_cast<std::size_t>(tokens), 5),
        old_log_probs(token_ids.size(), compute(-12)),
        log_probs(token_ids.size()),
        d_log_probs(token_ids.size()),
        entropies(token_ids.size()),
        offsets{0, tokens / 2, tokens},
        advantages{compute(1), compute(-1)} {
    for (std::size_t i = 0; i < logits.size(); ++i) {
      logits[i] = static_cast<T>(static_cast<compute>((i * 7919) % 1000) * compute(0.01) - 5);
    }
  }
  lamina::policy_batch<compute> batch() const {
    lamina::policy_batch<compute> b;
    b.offsets = offsets;
    b.token_ids = token_ids;
    b.old_log_probs = old_log_probs;
    b.advantages = advantages;
    b.denominators = lamina::denominators_of(b);
    return b;
  }
  std::vector<T> logits;
  std::vector<std::int32_t> token_ids;
  std::vector<compute> old_log_probs, log_probs, d_log_probs, entropies;
  std::vector<index_t> offsets;
  std::vector<compute> advantages;
};

// What one writes first: log-softmax with std::exp, entropy, then the gradient.
double textbook(float* row, index_t vocab, std::int32_t chosen, float coefficient) {
  float peak = row[0];
  for (index_t v = 1; v < vocab; ++v) peak = std::max(peak, row[v]);
  float total = 0;
  for (index_t v = 0; v < vocab; ++v) total += std::exp(row[v] - peak);
  float const log_total = peak + std::log(total);
  double entropy = 0;
  for (index_t v = 0; v < vocab; ++v) {
    float const log_p = row[v] - log_total;
    float const p = std::exp(log_p);
    entropy -= static_cast<double>(p * log_p);
    row[v] = coefficient * ((v == chosen ? 1.0f : 0.0f) - p);
  }
  return entropy;
}

// The hook on two threads of its own; starting one costs little beside a batch of logits.
struct two_threads {
  template <class F>
  void operator()(index_t count, index_t /*grain*/, F const& f) const {
    std::thread other([&] { f(count / 2, count); });
    f(0, count / 2);
    other.join();
  }
};

template <class T, class ParallelFor = lamina::serial_for>
void logits_loss(benchmark::State& state) {
  index_t const tokens = 64, vocab = state.range(0);
  bool const with_entropy = state.range(1) != 0;
  ParallelFor const parallel{};
  rollouts<T> const fresh(tokens, vocab);
  rollouts<T> data = fresh;
  std::vector<T> copy(fresh.logits.size());
  rollouts<float> const plain(tokens, vocab);
  std::vector<float> textbook_logits = plain.logits;
  examples::chosen_backend<float, ParallelFor> const backend;
  lamina::grpo const estimator{.surrogate = {.clip_low = 0.2, .clip_high = 0.28}};
  auto outputs =
      lamina::policy_outputs<typename rollouts<T>::compute>{data.log_probs, data.d_log_probs, {}};
  if (with_entropy) outputs.entropies = data.entropies;
  double form_time = 0, textbook_time = 0, copy_time = 0;
  for ([[maybe_unused]] auto iteration : state) {
    double const start = seconds();
    parallel(static_cast<index_t>(copy.size()), 1, [&](index_t begin, index_t end) {
      std::memcpy(static_cast<void*>(copy.data() + begin), data.logits.data() + begin,
                  static_cast<std::size_t>(end - begin) * sizeof(T));
    });
    benchmark::DoNotOptimize(copy.data());
    benchmark::ClobberMemory();
    double const copied = seconds();
    for (index_t t = 0; t < tokens; ++t) {
      benchmark::DoNotOptimize(textbook(textbook_logits.data() + t * vocab, vocab, 5, 1.0f));
    }
    double const compared = seconds();
    data.logits = fresh.logits;
    textbook_logits = plain.logits;
    double const begin = seconds();
    auto const result = lamina::policy_loss(
        backend, estimator, lamina::matrix_view<T>(data.logits.data(), tokens, vocab), data.batch(),
        outputs);
    benchmark::DoNotOptimize(result);
    double const end = seconds();
    form_time += end - begin;
    textbook_time += compared - copied;
    copy_time += copied - start;
    state.SetIterationTime(end - begin);
  }
  double const logits =
      static_cast<double>(state.iterations()) * static_cast<double>(tokens * vocab);
  double const threads = std::is_same_v<ParallelFor, two_threads> ? 2 : 1;
  state.counters["ns_per_logit"] = threads * form_time * 1e9 / logits;
  state.counters["over_textbook"] = textbook_time / form_time;
  state.counters["of_memcpy"] = copy_time / form_time;
}

}  // namespace

BENCHMARK_TEMPLATE(logits_loss, float)
    ->ArgNames({"vocab", "entropy"})
    ->ArgsProduct({{32768, 151936}, {0, 1}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(logits_loss, float, two_threads)
    ->ArgNames({"vocab", "entropy"})
    ->ArgsProduct({{32768, 151936}, {0, 1}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(logits_loss, lamina::bf16)
    ->ArgNames({"vocab", "entropy"})
    ->ArgsProduct({{32768}, {0, 1}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(logits_loss, lamina::f16)
    ->ArgNames({"vocab", "entropy"})
    ->ArgsProduct({{32768}, {0, 1}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

BENCHMARK_MAIN();
