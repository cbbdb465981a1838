// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/gemm_plain.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "tests/support/gemm_cases.hpp"

using lamina::index_t;
using lamina::plain_gemm;
using lamina::transpose;

TEST_CASE_TEMPLATE("plain_gemm: every transposition, stride, factor and size gives the product", T,
                   float, double) {
  lamina::testing::check_gemm<T>(plain_gemm{});
}

TEST_CASE_TEMPLATE("plain_gemm: sizes at and beside the borders of its blocks", T, float, double) {
  using tile = lamina::detail::plain_tile<T>;
  for (transpose const ta : {transpose::no, transpose::yes}) {
    for (transpose const tb : {transpose::no, transpose::yes}) {
      for (index_t const beside : {-1, 0, 1}) {
        lamina::testing::check_gemm_case<T>(plain_gemm{}, ta, tb, tile::block_rows + beside,
                                            tile::cols + beside, tile::depth + beside, T(0.5), T(0),
                                            2);
        lamina::testing::check_gemm_case<T>(plain_gemm{}, ta, tb, tile::rows + beside,
                                            3 * tile::cols + beside, 2 * tile::depth + beside, T(1),
                                            T(-2), 1);
      }
    }
  }
}

TEST_CASE_TEMPLATE("plain_gemm: an element has the same bits however the product is cut", T, float,
                   double) {
  index_t const rows = 80, cols = 45, depth = 300;
  auto const a = lamina::testing::strided_numbers<T>(1, rows, depth, depth, T(0));
  auto const b = lamina::testing::strided_numbers<T>(2, cols, depth, depth, T(0));
  std::vector<T> whole(static_cast<std::size_t>(rows * cols)), alone(1);
  auto const multiply = [&](lamina::matrix_view<T const> x, lamina::matrix_view<T const> y,
                            lamina::matrix_view<T> c) {
    plain_gemm{}(
        lamina::make_gemm_arguments<T>(transpose::no, transpose::yes, T(1.5), x, y, T(0), c));
  };
  multiply({a.data(), rows, depth}, {b.data(), cols, depth}, {whole.data(), rows, cols});
  for (index_t const row : {0, 5, 6, 71, 72, 79}) {
    for (index_t const col : {0, 7, 8, 44}) {
      multiply({a.data() + row * depth, 1, depth}, {b.data() + col * depth, 1, depth},
               {alone.data(), 1, 1});
      CHECK(alone[0] == whole[static_cast<std::size_t>(row * cols + col)]);
    }
  }
}
