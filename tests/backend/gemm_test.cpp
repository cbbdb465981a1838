// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/gemm.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "lamina/backend/eigen.hpp"
#include "tests/support/gemm_cases.hpp"
#include "tests/support/threaded_lanes.hpp"

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

TEST_CASE("gemm_in_panels: gives the product, for panels of rows and of columns") {
  auto const in_panels = [](gemm_arguments<float> const& g) {
    gemm_in_panels(serial_for{}, eigen_gemm{}, g);
  };
  testing::check_gemm<float>(in_panels);
  for (transpose const ta : {transpose::no, transpose::yes}) {
    for (transpose const tb : {transpose::no, transpose::yes}) {
      for (index_t const longer : {384, 385, 1000, 2 * 384 + 1}) {
        testing::check_gemm_case<float>(in_panels, ta, tb, longer, 7, 5, 1.f, 0.f, 3);
        testing::check_gemm_case<float>(in_panels, ta, tb, 7, longer, 5, 1.f, 1.f, 3);
      }
    }
  }
}

TEST_CASE("eigen_backend: a product has the same bits on any number of threads") {
  auto const a = testing::strided_numbers<float>(1, 9, 33, 33, 0.f);
  auto const b = testing::strided_numbers<float>(2, 1500, 33, 33, 0.f);
  auto const product = [&](auto const& backend, bool tall) {
    auto c = backend.make_matrix(tall ? 1500 : 9, tall ? 9 : 1500);
    matrix_view<float const> const few{a.data(), 9, 33}, many{b.data(), 1500, 33};
    backend.gemm(transpose::no, transpose::yes, 1.f, tall ? many : few, tall ? few : many, 0.f,
                 backend.view(c));
    return c;
  };
  for (bool const tall : {false, true}) {
    auto const one = product(eigen_backend<float>{}, tall);
    for (index_t const threads : {2, 3, 5}) {
      using threaded = testing::spawning_for;
      auto const many = product(eigen_backend<float, threaded>{threaded{threads}, {}}, tall);
      CHECK((one.array() == many.array()).all());
    }
  }
}
