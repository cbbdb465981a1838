// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/lanes.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "tests/support/threaded_lanes.hpp"

using lamina::index_t;
using lamina::testing::spawning_for;
using lamina::testing::threaded_rows;

namespace {

// Writes row + lane-collective results, so that a missing barrier or guard shows.
struct collective_body {
  index_t width;
  double* sums;
  double* peaks;
  template <lamina::lane_group Lanes>
  void operator()(Lanes lanes, index_t row) const {
    double sum = 0, peak = -1;
    for (index_t i = lanes.lane(); i < width; i += lanes.count()) {
      double const x = static_cast<double>((row * 31 + i * 17) % 101);
      sum += x;
      peak = x > peak ? x : peak;
    }
    sum = lanes.sum(sum);
    peak = lanes.max(peak);
    if (lanes.lane() == 0) {
      sums[row] = sum;
      peaks[row] = peak;
    }
  }
};

}  // namespace

TEST_CASE("a body gives the same rows with one lane and with 3, 7 and 33 threaded lanes") {
  index_t const rows = 5, width = 20;
  std::vector<double> sums(5), peaks(5);
  lamina::host_rows<>{}.run(rows, collective_body{width, sums.data(), peaks.data()});
  for (index_t lanes : {3, 7, 33}) {
    std::vector<double> s(5, -1), p(5, -1);
    threaded_rows{lanes}.run(rows, collective_body{width, s.data(), p.data()});
    CHECK(s == sums);
    CHECK(p == peaks);
  }
}

TEST_CASE("parallel_for hooks cover every index once, for any count and grain") {
  for (index_t count : {0, 1, 2, 3, 7, 100}) {
    for (index_t grain : {1, 3, 50}) {
      std::vector<int> visits(static_cast<std::size_t>(count));
      auto const visit = [&](index_t begin, index_t end) {
        for (index_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
      };
      lamina::serial_for{}(count, grain, visit);
      spawning_for{4}(count, grain, visit);
      for (int v : visits) CHECK(v == 2);
    }
  }
}

TEST_CASE("host_rows: threads give what one thread gives") {
  std::vector<double> sums(64), peaks(64), s(64), p(64);
  lamina::host_rows<>{}.run(64, collective_body{100, sums.data(), peaks.data()});
  lamina::host_rows<spawning_for>{spawning_for{7}}.run(64,
                                                       collective_body{100, s.data(), p.data()});
  CHECK(s == sums);
  CHECK(p == peaks);
}
