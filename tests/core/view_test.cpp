// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/view.hpp"

#include <doctest/doctest.h>

#include <array>
#include <span>
#include <type_traits>
#include <vector>

using lamina::matrix_view;
using lamina::vector_view;

TEST_CASE("vector_view: from vectors, arrays and spans, reading and writing through") {
  std::vector<float> v{1, 2, 3};
  vector_view<float> const view(v);
  view[1] = 7;
  CHECK(v[1] == 7);
  vector_view<float const> const read = view;
  CHECK(read.size == 3);
  CHECK(read.subview(1, 2)[0] == 7);
  std::array<double, 2> const a{4, 5};
  CHECK(vector_view<double const>(a)[1] == 5);
  CHECK(vector_view<float const>(std::span<float>(v)).size == 3);
  float sum = 0;
  for (float x : read) sum += x;
  CHECK(sum == 11);
}

TEST_CASE("vector_view: never converts elements, never drops const") {
  static_assert(!std::is_constructible_v<vector_view<double const>, std::vector<float>&>);
  static_assert(!std::is_constructible_v<vector_view<float>, std::vector<float> const&>);
  static_assert(!std::is_constructible_v<vector_view<float>, vector_view<float const>>);
  static_assert(std::is_trivially_copyable_v<vector_view<float>>);
  static_assert(std::is_trivially_copyable_v<matrix_view<float>>);
  CHECK(vector_view<float>().empty());
}

TEST_CASE("matrix_view: rows lie stride elements apart") {
  std::vector<int> data(12);
  for (int i = 0; i < 12; ++i) data[static_cast<std::size_t>(i)] = i;
  matrix_view<int> const m(data.data(), 3, 2, 4);
  CHECK(m(2, 1) == 9);
  CHECK(m.row(1)[0] == 4);
  CHECK(m.row(1).size == 2);
  CHECK_FALSE(m.contiguous());
  matrix_view<int const> const block = m.row_block(1, 2);
  CHECK(block.rows == 2);
  CHECK(block(0, 1) == 5);
  CHECK(matrix_view<int>(data.data(), 3, 4).contiguous());
}
