// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/gemm_onednn.hpp"

#include <doctest/doctest.h>

#include <future>

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

TEST_CASE("onednn_gemm: runs on the calling thread and leaves OpenMP as it was") {
  using namespace lamina::detail;
  if (omp_get_max_threads == nullptr) return;  // a oneDNN without OpenMP
  int const before = omp_get_max_threads();
  omp_set_num_threads(3);
  {
    one_openmp_thread const single;
    CHECK(omp_get_max_threads() == 1);
    int const elsewhere =
        std::async(std::launch::async, [] { return omp_get_max_threads(); }).get();
    CHECK(elsewhere == before);
  }
  CHECK(omp_get_max_threads() == 3);
  omp_set_num_threads(before);
}

TEST_CASE("onednn_gemm: products of several threads at once have the bits of one") {
  auto const a = lamina::testing::strided_numbers<float>(1, 64, 200, 200, 0.f);
  auto const b = lamina::testing::strided_numbers<float>(2, 300, 200, 200, 0.f);
  auto const product = [&] {
    lamina::eigen_backend<float, lamina::serial_for, onednn_gemm> const backend;
    auto c = backend.make_matrix(64, 300);
    backend.gemm(transpose::no, transpose::yes, 1.f, {a.data(), 64, 200}, {b.data(), 300, 200}, 0.f,
                 backend.view(c));
    return c;
  };
  auto const expected = product();
  auto first = std::async(std::launch::async, product),
       second = std::async(std::launch::async, product);
  CHECK((first.get().array() == expected.array()).all());
  CHECK((second.get().array() == expected.array()).all());
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
