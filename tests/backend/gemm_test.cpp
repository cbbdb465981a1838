// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/gemm.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace lamina;

TEST_CASE("make_gemm_arguments: sizes of the product, strides of the operands") {
  std::vector<float> data(100);
  matrix_view<float const> const a(data.data(), 3, 4, 10), b(data.data(), 5, 4);
  matrix_view<float> const c(data.data(), 3, 5, 6);
  auto const g = make_gemm_arguments<float>(transpose::no, transpose::yes, 2, a, b, 1, c);
  CHECK(g.rows == 3);
  CHECK(g.cols == 5);
  CHECK(g.depth == 4);
  CHECK(g.a_stride == 10);
  CHECK(g.b_stride == 4);
  CHECK(g.c_stride == 6);
}

TEST_CASE("make_gemm_arguments: shapes that do not fit are named") {
  std::vector<float> data(100);
  matrix_view<float const> const a(data.data(), 3, 4), b(data.data(), 5, 4);
  matrix_view<float> const c(data.data(), 3, 5);
  CHECK_THROWS_WITH_AS(make_gemm_arguments<float>(transpose::no, transpose::no, 1, a, b, 0, c),
                       "gemm: op(a) is 3 x 4, op(b) is 5 x 4, c is 3 x 5; expected c = op(a) op(b)",
                       shape_error);
  matrix_view<float> const wrong(data.data(), 3, 4);
  CHECK_THROWS_AS(make_gemm_arguments<float>(transpose::no, transpose::yes, 1, a, b, 0, wrong),
                  shape_error);
}
