// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/eigen.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
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
