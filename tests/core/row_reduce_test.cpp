// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/row_reduce.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "tests/support/threaded_lanes.hpp"

using lamina::index_t;
using lamina::single_lane;
using lamina::testing::threaded_rows;

namespace {

// Integers, so that every order of additions gives the same sum.
double value_at(index_t i) { return static_cast<double>((i * 7919) % 1009 - 500); }

struct reduce_body {
  index_t begin, end;
  double* out;  // max, sum, pair.first, pair.second
  int* visits;
  template <lamina::lane_group Lanes>
  void operator()(Lanes lanes, index_t) const {
    auto const f = [](index_t i) { return value_at(i); };
    double const most = lanes.max(lamina::lane_max(lanes, begin, end, -1e9, f));
    double const sum = lanes.sum(lamina::lane_sum<double>(lanes, begin, end, f));
    auto const pair = lamina::lane_sum_pair<double>(lanes, begin, end, [](index_t i) {
      return lamina::sum_pair<double>{1.0, value_at(i) * 2};
    });
    double const first = lanes.sum(pair.first);
    double const second = lanes.sum(pair.second);
    int* const seen = visits;
    lamina::for_each_element(lanes, begin, end, [seen](index_t i) { ++seen[i]; });
    if (lanes.lane() == 0) {
      out[0] = most;
      out[1] = sum;
      out[2] = first;
      out[3] = second;
    }
  }
};

}  // namespace

TEST_CASE("reductions over a row: every length around the unrolling, 1, 7 and 33 lanes") {
  for (index_t begin : {0, 5}) {
    for (index_t length : {1, 2, 15, 16, 17, 31, 33, 100, 111, 112, 113, 1000}) {
      index_t const end = begin + length;
      double most = -1e9, sum = 0;
      for (index_t i = begin; i < end; ++i) {
        most = value_at(i) > most ? value_at(i) : most;
        sum += value_at(i);
      }
      for (index_t lanes : {1, 7, 33}) {
        double out[4] = {};
        std::vector<int> visits(static_cast<std::size_t>(end));
        if (lanes == 1) {
          reduce_body{begin, end, out, visits.data()}(single_lane{}, 0);
        } else {
          threaded_rows{lanes}.run(1, reduce_body{begin, end, out, visits.data()});
        }
        CHECK(out[0] == most);
        CHECK(out[1] == sum);
        CHECK(out[2] == static_cast<double>(length));
        CHECK(out[3] == 2 * sum);
        for (index_t i = 0; i < end; ++i) {
          CHECK(visits[static_cast<std::size_t>(i)] == (i >= begin ? 1 : 0));
        }
      }
    }
  }
}

TEST_CASE("an empty row leaves the initial value and a sum of 0") {
  auto const f = [](index_t) { return 1.0; };
  CHECK(lamina::lane_max(single_lane{}, 3, 3, -7.0, f) == -7.0);
  CHECK(lamina::lane_sum<double>(single_lane{}, 3, 3, f) == 0.0);
}
