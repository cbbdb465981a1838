// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The least a backend can be.
#pragma once

#include <memory>

#include "lamina/backend/backend.hpp"

namespace lamina::testing {

/// Exactly what the tensor_backend concept asks for and nothing more: an algorithm that compiles
/// with it has no hidden requirement.
template <real T>
struct minimal_backend {
  using scalar_type = T;
  struct matrix_type {
    matrix_type(index_t r, index_t c)
        : rows(r), cols(c), data(new T[static_cast<std::size_t>(r * c)]()) {}
    index_t rows, cols;
    std::unique_ptr<T[]> data;
  };
  struct rows_in_reverse {
    void run(index_t rows, auto const& body) const {
      for (index_t row = rows - 1; row >= 0; --row) body(single_lane{}, row);
    }
  };
  matrix_type make_matrix(index_t rows, index_t cols) const { return {rows, cols}; }
  static matrix_view<T> view(matrix_type& m) { return {m.data.get(), m.rows, m.cols}; }
  static matrix_view<T const> view(matrix_type const& m) { return {m.data.get(), m.rows, m.cols}; }
  rows_in_reverse executor() const { return {}; }
  void gemm(transpose ta, transpose tb, T alpha, matrix_view<T const> a, matrix_view<T const> b,
            T beta, matrix_view<T> c) const {
    bool const flip_a = ta == transpose::yes, flip_b = tb == transpose::yes;
    index_t const depth = flip_a ? a.rows : a.cols;
    for (index_t i = 0; i < c.rows; ++i) {
      for (index_t j = 0; j < c.cols; ++j) {
        double sum = 0;
        for (index_t k = 0; k < depth; ++k) {
          sum += static_cast<double>(flip_a ? a(k, i) : a(i, k)) *
                 static_cast<double>(flip_b ? b(j, k) : b(k, j));
        }
        c(i, j) = static_cast<T>(static_cast<double>(alpha) * sum +
                                 (beta == T(0) ? 0.0 : static_cast<double>(beta * c(i, j))));
      }
    }
  }
};

static_assert(check_backend<minimal_backend<float>>());

}  // namespace lamina::testing
