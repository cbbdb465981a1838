// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the benchmarks of whole models on a host share: the shape of SmolLM2-135M, how times are
// taken, and the ceilings they are held against.
#pragma once

#include <cstdlib>
#include <ctime>
#include <vector>

#include "benchmarks/median.hpp"
#include "benchmarks/model/random_model.hpp"
#include "examples/decoder/memory.hpp"
#include "examples/decoder/transformer.hpp"
#include "examples/support/gemm.hpp"
#include "lamina/core/openmp.hpp"
#include "lamina/core/pack.hpp"

namespace model_bench {

using lamina::index_t;
using lamina::benchmarks::median;

#if defined(_OPENMP)
using backend_type = examples::chosen_backend<float, lamina::openmp_for>;
#else
using backend_type = examples::chosen_backend<float>;
#endif
using model_type = decoder::transformer<backend_type>;

inline constexpr decoder::config smollm2{.layer_count = 30,
                                         .width = 576,
                                         .head_count = 9,
                                         .kv_head_count = 3,
                                         .head_width = 64,
                                         .ffn_width = 1536,
                                         .vocab = 49152,
                                         .rope_theta = 100000,
                                         .norm_epsilon = 1e-5,
                                         .tied_head = true};

/// One thread, unless OMP_NUM_THREADS says otherwise.
inline void choose_threads() {
#if defined(_OPENMP)
  if (std::getenv("OMP_NUM_THREADS") == nullptr) omp_set_num_threads(1);
#endif
}

/// On one thread the processor time of this process, which neighbours on the machine do not
/// stretch; on several the time on the wall.
inline double now() {
  std::timespec time{};
#if defined(_OPENMP)
  clock_gettime(omp_get_max_threads() > 1 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &time);
#else
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
#endif
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Seconds of one call.
template <class F>
double seconds_of(F const& f) {
  double const start = now();
  f();
  return now() - start;
}

/// Multiply-adds in registers on one thread for a moment, in FLOP/s: no product of matrices is
/// faster.
inline double fma_peak() {
  constexpr int chains = 12;  // more than latency x throughput of any processor with 16 registers
  constexpr int steps = 2'000'000;
  using pack = lamina::pack<float>;
  pack sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = pack(0.5 + i);
  volatile float factor_source = 0.999f, term_source = 1e-3f;
  pack const factor(factor_source), term(term_source);
  double const seconds = seconds_of([&] {
    for (int step = 0; step < steps; ++step) {
      for (int i = 0; i < chains; ++i) sums[i] = sums[i] * factor + term;
    }
  });
  float lanes[pack::lanes];
  for (int i = 1; i < chains; ++i) sums[0] = sums[0] + sums[i];
  sums[0].store(lanes);
  volatile float sink = lanes[0];
  static_cast<void>(sink);
  return 2.0 * chains * steps * static_cast<double>(pack::lanes) / seconds;
}

}  // namespace model_bench
