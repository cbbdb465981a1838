// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/tile_sums.hpp"

#include <doctest/doctest.h>

#include "tests/support/threaded_lanes.hpp"
#include "tests/support/tile_products.hpp"

using lamina::index_t;
using namespace lamina::testing;

static_assert(lamina::sharing_lane_group<keeping_lanes>);
static_assert(!lamina::multiplying_lane_group<keeping_lanes>);
static_assert(
    std::same_as<lamina::tile_sums<keeping_lanes, 16, 32>, lamina::plain_tile_sums<16, 32>>);

TEST_CASE_TEMPLATE("tile sums: products of tiles are exact, and held once, for any lanes", T,
                   lamina::bf16, lamina::f16) {
  using products = exact_tile_products<T, 32, 16, 48>;
  for (int const rows : {1, 5, 16, 32}) {
    CAPTURE(rows);
    products const p(rows);
    for (index_t const lanes : {1, 7, 33}) {
      CAPTURE(lanes);
      std::vector<float> scores(p.scores.size()), mixed(p.mixed.size());
      std::vector<float> sums(p.sums.size()), maxima(p.maxima.size());
      std::vector<int> visits(p.scores.size());
      typename products::body const body{rows,        p.a.data(),    p.b.data(),
                                         p.c.data(),  scores.data(), mixed.data(),
                                         sums.data(), maxima.data(), visits.data()};
      index_t const row = lanes * lamina::slot_bytes;
      keeping_rows{lanes, (body.shared_bytes() + row - 1) / row}.run(1, body);
      CHECK(scores == p.scores);
      CHECK(mixed == p.mixed);
      CHECK(sums == p.sums);
      CHECK(maxima == p.maxima);
      CHECK(visits == std::vector<int>(visits.size(), 1));
    }
  }
}
