// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/eigen.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "lamina/core/random.hpp"
#include "tests/support/backends.hpp"

using namespace lamina;

TEST_CASE_TEMPLATE("gemm: random shapes, strides and scales against a plain double loop", T, float,
                   double) {
  counter_generator random(5);
  eigen_backend<T> const backend;
  testing::minimal_backend<T> const reference;
  for (int round = 0; round < 60; ++round) {
    auto const pick = [&](std::uint32_t bound) {
      return static_cast<index_t>(random.below(bound));
    };
    index_t const m = pick(20), n = pick(20), k = pick(20);
    auto const ta = pick(2) ? transpose::yes : transpose::no;
    auto const tb = pick(2) ? transpose::yes : transpose::no;
    auto const make = [&](index_t rows, index_t cols, std::vector<T>& storage) {
      index_t const stride = cols + pick(4);
      storage.resize(static_cast<std::size_t>(rows * stride + 1));
      for (T& x : storage) x = static_cast<T>(random.uniform() - 0.5);
      return matrix_view<T>(storage.data(), rows, cols, stride);
    };
    std::vector<T> sa, sb, sc, sd;
    auto const a = ta == transpose::yes ? make(k, m, sa) : make(m, k, sa);
    auto const b = tb == transpose::yes ? make(n, k, sb) : make(k, n, sb);
    auto const c = make(m, n, sc);
    sd = sc;
    matrix_view<T> const d(sd.data(), c.rows, c.cols, c.stride);
    T const alpha = static_cast<T>(random.uniform()), beta = T(pick(3)) / 2;
    backend.gemm(ta, tb, alpha, a, b, beta, c);
    reference.gemm(ta, tb, alpha, a, b, beta, d);
    for (std::size_t i = 0; i < sc.size(); ++i) {
      CHECK(std::abs(sc[i] - sd[i]) < 50 * std::numeric_limits<T>::epsilon());
    }
  }
}

TEST_CASE("gemm: with beta 0 the result is written without being read") {
  std::vector<float> const a{2}, b{3};
  std::vector<float> c{std::numeric_limits<float>::quiet_NaN()};
  eigen_backend<float>{}.gemm(
      transpose::no, transpose::no, 1.0f, matrix_view<float const>(a.data(), 1, 1),
      matrix_view<float const>(b.data(), 1, 1), 0.0f, matrix_view<float>(c.data(), 1, 1));
  CHECK(c[0] == 6);
}

TEST_CASE("make_matrix_view: row-major matrices, arrays, maps, references and blocks of Eigen") {
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  matrix m = matrix::Zero(4, 6);
  matrix_view<float> const whole = make_matrix_view(m);
  CHECK(whole.data == m.data());
  CHECK(whole.rows == 4);
  CHECK(whole.cols == 6);
  matrix const& constant = m;
  static_assert(std::is_same_v<decltype(make_matrix_view(constant)), matrix_view<float const>>);

  matrix_view<float> const block = make_matrix_view(m.block(1, 2, 2, 3));
  CHECK(block.stride == 6);
  block(1, 2) = 5;
  CHECK(m(2, 4) == 5);

  Eigen::Ref<matrix> const reference(m);
  CHECK(make_matrix_view(reference).stride == 6);
  Eigen::Map<matrix const, 0, Eigen::OuterStride<>> const map(m.data(), 2, 5,
                                                              Eigen::OuterStride<>(12));
  CHECK(make_matrix_view(map).row(1).data == m.data() + 12);
  Eigen::Array<double, 2, 3, Eigen::RowMajor> array = decltype(array)::Zero();
  CHECK(make_matrix_view(array).cols == 3);
}

TEST_CASE("make_matrix_view: vectors of Eigen are one column or one row") {
  Eigen::VectorXf column = Eigen::VectorXf::Zero(5);
  CHECK(make_matrix_view(column).rows == 5);
  CHECK(make_matrix_view(column).cols == 1);
  CHECK(make_vector_view(column).size == 5);
  Eigen::RowVectorXf row = Eigen::RowVectorXf::Zero(5);
  CHECK(make_matrix_view(row).cols == 5);
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  matrix m = matrix::Zero(4, 6);
  CHECK(make_matrix_view(m.col(2)).stride == 6);
  CHECK_THROWS_AS(make_vector_view(m.col(2)), shape_error);
}

TEST_CASE("make_matrix_view: an inner stride that only the map knows is refused") {
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  std::vector<float> values(24);
  Eigen::Map<matrix, 0, strides> const spread(values.data(), 2, 4, strides(12, 2));
  CHECK_THROWS_WITH_AS(make_matrix_view(spread),
                       "make_matrix_view: tensor has shape [2, 4] and strides [12, 2], expected a "
                       "last stride of 1: rows must be contiguous",
                       shape_error);
  Eigen::Map<matrix, 0, strides> const dense(values.data(), 2, 4, strides(12, 1));
  CHECK(make_matrix_view(dense).stride == 12);
}
