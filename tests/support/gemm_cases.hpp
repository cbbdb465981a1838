// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What every pointer_gemm must do, checked against a triple loop in double.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "lamina/backend/gemm.hpp"
#include "lamina/core/random.hpp"

namespace lamina::testing {

/// Row-major numbers in (-1, 1), rows `stride` apart; the gaps between rows hold `gap`.
template <class T>
std::vector<T> strided_numbers(std::uint64_t seed, index_t rows, index_t cols, index_t stride,
                               T gap) {
  counter_generator random(seed);
  std::vector<T> numbers(static_cast<std::size_t>(rows * stride), gap);
  for (index_t row = 0; row < rows; ++row) {
    for (index_t col = 0; col < cols; ++col) {
      numbers[static_cast<std::size_t>(row * stride + col)] =
          static_cast<T>(2 * random.uniform() - 1);
    }
  }
  return numbers;
}

/// One product with every operand `padding` elements wider than it needs to be. NaN lies in the
/// gaps, and in all of c when beta is 0: it must be neither read nor overwritten.
template <class T, pointer_gemm<T> Gemm>
void check_gemm_case(Gemm const& gemm, transpose ta, transpose tb, index_t rows, index_t cols,
                     index_t depth, T alpha, T beta, index_t padding) {
  bool const flip_a = ta == transpose::yes, flip_b = tb == transpose::yes;
  index_t const a_rows = flip_a ? depth : rows, a_cols = flip_a ? rows : depth;
  index_t const b_rows = flip_b ? cols : depth, b_cols = flip_b ? depth : cols;
  index_t const a_stride = a_cols + padding, b_stride = b_cols + padding, c_stride = cols + padding;
  T const nan = std::numeric_limits<T>::quiet_NaN();
  auto const a = strided_numbers<T>(1, a_rows, a_cols, a_stride, nan);
  auto const b = strided_numbers<T>(2, b_rows, b_cols, b_stride, nan);
  auto const before = strided_numbers<T>(3, rows, cols, c_stride, nan);
  auto c = beta == T(0) ? std::vector<T>(before.size(), nan) : before;

  matrix_view<T const> const a_view{a.data(), a_rows, a_cols, a_stride};
  matrix_view<T const> const b_view{b.data(), b_rows, b_cols, b_stride};
  matrix_view<T const> const before_view{before.data(), rows, cols, c_stride};
  matrix_view<T> const c_view{c.data(), rows, cols, c_stride};
  gemm(make_gemm_arguments<T>(ta, tb, alpha, a_view, b_view, beta, c_view));

  double worst = 0;
  for (index_t i = 0; i < rows; ++i) {
    for (index_t j = 0; j < cols; ++j) {
      double sum = 0;
      for (index_t k = 0; k < depth; ++k) {
        sum += double{flip_a ? a_view(k, i) : a_view(i, k)} *
               double{flip_b ? b_view(j, k) : b_view(k, j)};
      }
      double expected = double{alpha} * sum;
      if (beta != T(0)) expected += double{beta} * double{before_view(i, j)};
      double const difference = std::abs(double{c_view(i, j)} - expected);
      worst = difference <= worst ? worst : difference;  // a NaN becomes the worst
    }
  }
  CAPTURE(flip_a);
  CAPTURE(flip_b);
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(depth);
  CAPTURE(alpha);
  CAPTURE(beta);
  CAPTURE(padding);
  CHECK(worst <= 8 * double{std::numeric_limits<T>::epsilon()} * static_cast<double>(depth + 1));
  bool gaps_untouched = true;
  for (index_t i = 0; i < rows; ++i) {
    for (index_t j = cols; j < c_stride; ++j) {
      gaps_untouched &= std::isnan(c[static_cast<std::size_t>(i * c_stride + j)]);
    }
  }
  CHECK(gaps_untouched);
}

/// All transpositions, strides, alphas, betas and sizes, 0 and 1 among them.
template <class T, pointer_gemm<T> Gemm>
void check_gemm(Gemm const& gemm) {
  for (transpose ta : {transpose::no, transpose::yes}) {
    for (transpose tb : {transpose::no, transpose::yes}) {
      for (index_t rows : {0, 1, 3, 33}) {
        for (index_t cols : {0, 1, 5, 20}) {
          for (index_t depth : {0, 1, 7, 40}) {
            for (T alpha : {T(1), T(-0.5)}) {
              for (T beta : {T(0), T(1), T(0.25)}) {
                for (index_t padding : {0, 3}) {
                  check_gemm_case<T>(gemm, ta, tb, rows, cols, depth, alpha, beta, padding);
                }
              }
            }
          }
        }
      }
    }
  }
}

}  // namespace lamina::testing
