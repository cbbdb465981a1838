// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A backend with all that is asked for; each mistake hides one member of it.
#pragma once

#include <vector>

#include "lamina/backend/backend.hpp"

struct complete_backend {
  using scalar_type = float;
  struct matrix_type {
    std::vector<float> elements;
    lamina::index_t rows, cols;
  };

  matrix_type make_matrix(lamina::index_t rows, lamina::index_t cols) const {
    return {std::vector<float>(static_cast<std::size_t>(rows * cols)), rows, cols};
  }
  static lamina::matrix_view<float> view(matrix_type& m) {
    return {m.elements.data(), m.rows, m.cols};
  }
  static lamina::matrix_view<float const> view(matrix_type const& m) {
    return {m.elements.data(), m.rows, m.cols};
  }
  lamina::host_rows<> executor() const { return {}; }
  void gemm(lamina::transpose, lamina::transpose, float, lamina::matrix_view<float const>,
            lamina::matrix_view<float const>, float, lamina::matrix_view<float>) const {}
};
