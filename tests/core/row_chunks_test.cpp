// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/row_chunks.hpp"

#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "lamina/core/view.hpp"
#include "tests/support/threaded_lanes.hpp"

using namespace lamina;

namespace {

// x -> 2 x + 1 after a pass that adds up; elements beyond the end would spoil the sum.
template <class T>
struct passes_body {
  matrix_view<T> values;
  vector_view<double> sums;
  bool fill;

  template <class Lanes>
  void operator()(Lanes lanes, index_t row) const {
    if constexpr (keeping_lane_group<Lanes>) {
      row_chunks const chunks(lanes, values.row(row).data, values.cols);
      using type = decltype(chunks);
      double sum = 0;
      int const fetched = chunks.fetch();
      chunks.read(fetched, T(0.0f), [&sum](auto const& loaded) {
        for (auto const& chunk : loaded) {
          for (auto const value : chunk) sum += static_cast<double>(value);
        }
      });
      sum = lanes.sum(sum);
      if (lanes.lane() == 0) sums[row] = sum;
      if (fill) {
        chunks.fill(T(7.0f));
      } else {
        chunks.rewrite(fetched, [](auto x) { return 2 * x + 1; });
      }
      static_assert(type::chunk_size * sizeof(T) == 16);
    }
  }
};

}  // namespace

TEST_CASE_TEMPLATE("row_chunks: every element is read once, kept or read again, and written once",
                   T, float, double, bf16, f16) {
  for (index_t const lanes : {1, 7, 33}) {
    for (index_t const slots : {0, 1, 9}) {
      for (index_t const cols : {1, 3, 16, 61, 200}) {
        index_t const rows = 3, gap = 5;  // rows start at any multiple of an element
        std::vector<T> values(static_cast<std::size_t>(rows * (cols + gap)));
        for (std::size_t i = 0; i < values.size(); ++i) {
          values[i] = T(static_cast<float>(i % 50) - 20);
        }
        for (bool const fill : {false, true}) {
          std::vector<T> changed = values;
          std::vector<double> sums(3);
          testing::keeping_rows{lanes, slots}.run(
              rows, passes_body<T>{{changed.data(), rows, cols, cols + gap}, sums, fill});
          for (index_t row = 0; row < rows; ++row) {
            double sum = 0;
            for (index_t col = 0; col < cols + gap; ++col) {
              std::size_t const at = static_cast<std::size_t>(row * (cols + gap) + col);
              double const before = static_cast<double>(static_cast<float>(values[at]));
              if (col < cols) sum += before;
              double const after = col >= cols ? before : fill ? 7 : 2 * before + 1;
              REQUIRE(static_cast<double>(static_cast<float>(changed[at])) == after);
            }
            REQUIRE(sums[static_cast<std::size_t>(row)] == sum);
          }
        }
      }
    }
  }
}

TEST_CASE("row_chunks: an element belongs to the lane of its chunk, wherever the row begins") {
  testing::lane_team team(5);
  alignas(16) float values[100] = {};
  for (int const lead : {0, 1, 3}) {
    for (index_t lane = 0; lane < 5; ++lane) {
      testing::keeping_lanes const lanes{{&team, lane}, 0, nullptr};
      row_chunks const chunks(lanes, values + lead, 90);
      for (index_t element : {0, 3, 8, 20, 89}) {
        CHECK(chunks.owns(element) == ((element + lead) / 4 % 5 == lane));
      }
    }
  }
}
