// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/gemm_onednn.hpp"

#include <doctest/doctest.h>

#include "lamina/backend/eigen.hpp"
#include "tests/support/gemm_cases.hpp"

using lamina::onednn_gemm;
using lamina::transpose;

TEST_CASE("onednn_gemm: every transposition, stride, factor and size gives the product") {
  lamina::testing::check_gemm<float>(onednn_gemm{});
}

TEST_CASE("onednn_gemm: a backend over it agrees with the backend over Eigen's GEMM") {
  lamina::eigen_backend<float> const by_eigen;
  lamina::eigen_backend<float, lamina::serial_for, onednn_gemm> const by_onednn;
  auto const a = lamina::testing::strided_numbers<float>(4, 50, 70, 70, 0.f);
  auto const b = lamina::testing::strided_numbers<float>(5, 50, 90, 90, 0.f);
  auto expected = by_eigen.make_matrix(70, 90);
  auto result = by_onednn.make_matrix(70, 90);
  by_eigen.gemm(transpose::yes, transpose::no, 1.f, {a.data(), 50, 70}, {b.data(), 50, 90}, 0.f,
                by_eigen.view(expected));
  by_onednn.gemm(transpose::yes, transpose::no, 1.f, {a.data(), 50, 70}, {b.data(), 50, 90}, 0.f,
                 by_onednn.view(result));
  CHECK((result - expected).cwiseAbs().maxCoeff() < 1e-5f);
}

TEST_CASE("onednn_gemm: a row stride below the row's width is refused by name") {
  float x[4] = {1, 2, 3, 4};
  lamina::gemm_arguments<float> g{.rows = 2,
                                  .cols = 1,
                                  .depth = 2,
                                  .a = x,
                                  .a_stride = 1,
                                  .b = x,
                                  .b_stride = 1,
                                  .c = x,
                                  .c_stride = 1};
  CHECK_THROWS_WITH_AS(onednn_gemm{}(g),
                       "onednn_gemm: a has row stride 1, expected at least its 2 columns",
                       lamina::shape_error);
  CHECK(x[0] == 1);
}
