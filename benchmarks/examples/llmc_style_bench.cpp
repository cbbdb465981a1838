// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What adopting lamina costs the engine in the manner of llm.c: its whole GRPO step (forward, loss,
// backward under a plan, AdamW of one layer) with lamina's loss and with the one that its author
// wrote by hand, in turns. The goal is a ratio of at most 1.01. A second program is the same,
// compiled with -ffast-math as such engines are.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include "examples/llmc_style/adopt.hpp"
#include "examples/llmc_style/grpo.hpp"

namespace {

constexpr float clip_low = 0.2f, clip_high = 0.28f;

// Of this thread, which alone works: what else runs on the machine counts less.
double seconds_now() {
  std::timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double seconds_of(auto&& f) {
  double const start = seconds_now();
  f();
  return seconds_now() - start;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Sequences of random tokens, the second half of each an answer.
episodes random_episodes(long B, long T, long vocab) {
  episodes e{};
  episodes_alloc(&e, B, T);
  unsigned long random = 1;
  for (long i = 0; i < B * T; ++i) {
    e.inputs[i] = static_cast<int>(gpt2_uniform(&random) * static_cast<float>(vocab));
    e.targets[i] = static_cast<int>(gpt2_uniform(&random) * static_cast<float>(vocab));
    e.answered[i] = i % T >= T / 2;
    e.log_probs[i] = -std::log(static_cast<float>(vocab)) + gpt2_uniform(&random) - 0.5f;
  }
  for (long b = 0; b < B; ++b) e.rewards[b] = gpt2_uniform(&random);
  return e;
}

void whole_step(benchmark::State& state) {
  long const V = state.range(0), width = state.range(1), B = state.range(2), T = state.range(3);
  long const group = 4;
  gpt2 m;
  gpt2_build(&m, {.vocab = V, .max_tokens = T, .layers = 4, .heads = 4, .width = width}, 1);
  gpt2_reserve(&m, B, T);
  episodes e = random_episodes(B, T, V);
  // The rate 0 keeps the weights, and so the work of every step, the same.
  layer_grpo grpo(&m, lamina::single_layer(2), e, group, 0);

  std::vector<float> advantages(static_cast<std::size_t>(B));
  auto const by_hand = [&] {
    group_advantages(advantages.data(), e.rewards, B, group);
    auto const logits = grpo.model.forward(e.inputs, grpo.plan);
    float const loss = grpo_loss(logits.data, e.targets, e.answered, e.log_probs, advantages.data(),
                                 B, T, V, clip_low, clip_high);
    grpo.model.backward(logits, grpo.plan);
    benchmark::DoNotOptimize(grpo.optimizer.step());
    benchmark::DoNotOptimize(loss);
  };
  auto const with_lamina = [&] { benchmark::DoNotOptimize(grpo.step(e)); };

  by_hand(), with_lamina();
  std::vector<double> hand_seconds, lamina_seconds, ratios;
  for (bool hand_first = true; auto _ : state) {
    double hand = 0, lamina = 0;
    if (hand_first) hand = seconds_of(by_hand);
    lamina = seconds_of(with_lamina);
    if (!hand_first) hand = seconds_of(by_hand);
    hand_first = !hand_first;
    state.SetIterationTime(lamina);
    hand_seconds.push_back(hand), lamina_seconds.push_back(lamina);
    ratios.push_back(lamina / hand);
  }
  state.counters["by_hand_ms"] = 1e3 * median(hand_seconds);
  state.counters["lamina_ms"] = 1e3 * median(lamina_seconds);
  state.counters["lamina/by_hand"] = median(ratios);
  gpt2_free(&m);
  episodes_free(&e);
}

}  // namespace

BENCHMARK(whole_step)
    ->ArgNames({"vocab", "width", "sequences", "tokens"})
    ->Args({10, 32, 64, 5})
    ->Args({512, 64, 16, 32})
    ->Args({8192, 64, 8, 32})
    ->Args({50257, 64, 4, 16})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
