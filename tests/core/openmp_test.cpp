// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/openmp.hpp"

#include <doctest/doctest.h>

#include <vector>

#if defined(_OPENMP)
TEST_CASE("openmp_for: covers every index once, for any thread limit, and does not nest") {
  using lamina::index_t;
  for (int threads : {0, 1, 2, 5}) {
    for (index_t count : {0, 1, 7, 100}) {
      std::vector<int> visits(static_cast<std::size_t>(count));
      lamina::openmp_for{threads}(count, 3, [&](index_t begin, index_t end) {
        lamina::openmp_for{threads}(end - begin, 1, [&](index_t first, index_t last) {
          for (index_t i = begin + first; i < begin + last; ++i) {
            ++visits[static_cast<std::size_t>(i)];
          }
        });
      });
      for (int v : visits) CHECK(v == 1);
    }
  }
}
static_assert(lamina::parallel_for<lamina::openmp_for>);
#else
TEST_CASE("without OpenMP the header is empty and harmless") {
  CHECK(lamina::single_lane::count() == 1);
}
#endif
