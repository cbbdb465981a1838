// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/gemm_cblas.hpp"

#include <doctest/doctest.h>

#include <climits>

#include "lamina/backend/eigen.hpp"
#include "tests/support/gemm_cases.hpp"

using lamina::cblas_gemm;
using lamina::index_t;
using lamina::transpose;

TEST_CASE_TEMPLATE("cblas_gemm: every transposition, stride, factor and size gives the product", T,
                   float, double) {
  lamina::testing::check_gemm<T>(cblas_gemm{});
}

TEST_CASE_TEMPLATE("cblas_gemm: a backend over it agrees with the backend over Eigen's GEMM", T,
                   float, double) {
  lamina::eigen_backend<T> const by_eigen;
  lamina::eigen_backend<T, lamina::serial_for, cblas_gemm> const by_cblas;
  auto const a = lamina::testing::strided_numbers<T>(4, 70, 50, 50, T(0));
  auto const b = lamina::testing::strided_numbers<T>(5, 90, 50, 50, T(0));
  auto expected = by_eigen.make_matrix(70, 90);
  auto result = by_cblas.make_matrix(70, 90);
  by_eigen.gemm(transpose::no, transpose::yes, T(1), {a.data(), 70, 50}, {b.data(), 90, 50}, T(0),
                by_eigen.view(expected));
  by_cblas.gemm(transpose::no, transpose::yes, T(1), {a.data(), 70, 50}, {b.data(), 90, 50}, T(0),
                by_cblas.view(result));
  CHECK(double{(result - expected).cwiseAbs().maxCoeff()} <
        50 * double{std::numeric_limits<T>::epsilon()});
}

TEST_CASE("cblas_gemm: sizes and strides that CBLAS cannot take are refused by name") {
  float x[4] = {1, 2, 3, 4};
  lamina::gemm_arguments<float> g{.rows = 1, .cols = 1, .depth = 1, .a = x, .b = x, .c = x};
  g.rows = index_t{INT_MAX} + 1;
  CHECK_THROWS_WITH_AS(
      cblas_gemm{}(g),
      "cblas_gemm: rows has size or stride 2147483648, expected at most 2147483647",
      lamina::shape_error);
  g.rows = 2;
  g.depth = 2;
  g.a_stride = 1;
  CHECK_THROWS_WITH_AS(cblas_gemm{}(g),
                       "cblas_gemm: a has row stride 1, expected at least its 2 columns",
                       lamina::shape_error);
  CHECK(x[0] == 1);
}
