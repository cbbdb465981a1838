// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/warp_tile_sums.hpp"

#include <doctest/doctest.h>

#include "tests/support/emulated_warp.hpp"
#include "tests/support/tile_products.hpp"

using namespace lamina::testing;

namespace {

template <class T, int Rows, int Cols, int Depth>
void check_products(int rows) {
  using products = exact_tile_products<T, Rows, Cols, Depth>;
  CAPTURE(Rows);
  CAPTURE(rows);
  products const p(rows);
  std::vector<float> scores(p.scores.size()), mixed(p.mixed.size());
  std::vector<float> sums(p.sums.size()), maxima(p.maxima.size());
  std::vector<int> visits(p.scores.size());
  emulated_rows{}.run(
      1, typename products::body{rows, p.a.data(), p.b.data(), p.c.data(), scores.data(),
                                 mixed.data(), sums.data(), maxima.data(), visits.data()});
  CHECK(scores == p.scores);
  CHECK(mixed == p.mixed);
  CHECK(sums == p.sums);
  CHECK(maxima == p.maxima);
  CHECK(visits == std::vector<int>(visits.size(), 1));
}

}  // namespace

TEST_CASE_TEMPLATE("warp tile sums: bit for bit those of plain loops, over documented instructions",
                   T, lamina::bf16, lamina::f16) {
  check_products<T, 64, 32, 16>(37);
  check_products<T, 64, 16, 48>(1);
  check_products<T, 128, 16, 32>(128);
  check_products<T, 128, 16, 16>(45);
}
