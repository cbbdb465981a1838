// expect: lamina: an Eigen expression has no memory
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/eigen.hpp"

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

float first(matrix const& a, matrix const& b) {
#ifdef LAMINA_FIXED
  matrix const sum = a + b;
#else
  auto const sum = a + b;
#endif
  return lamina::make_matrix_view(sum)(0, 0);
}
