// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The parallel_for hook over OpenMP, present when the translation unit is compiled with it.
#pragma once

#include "lamina/core/lanes.hpp"

#if defined(_OPENMP)
#include <omp.h>

LAMINA_NAMESPACE_BEGIN

/// Splits [0, count) into one contiguous range a thread. Never nests: inside a parallel region it
/// runs on the calling thread.
struct openmp_for {
  /// Threads to use at most; 0 leaves the choice to OpenMP.
  int threads = 0;

  template <class F>
  void operator()(index_t count, index_t grain, F&& f) const {
    if (count <= 0) return;
    index_t const limit = threads > 0 ? threads : omp_get_max_threads();
    index_t const useful = grain > 0 ? (count + grain - 1) / grain : count;
    index_t const ranges = useful < limit ? useful : limit;
    if (ranges <= 1 || omp_in_parallel()) {
      f(index_t{0}, count);
      return;
    }
#pragma omp parallel for schedule(static, 1) num_threads(static_cast <int>(ranges))
    for (index_t range = 0; range < ranges; ++range) {
      f(count * range / ranges, count * (range + 1) / ranges);
    }
  }
};

LAMINA_NAMESPACE_END
#endif
