// expect: lamina: this Eigen matrix is column-major
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/eigen.hpp"

#ifdef LAMINA_FIXED
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
#else
using matrix = Eigen::MatrixXf;
#endif

lamina::matrix_view<float> view(matrix& logits) { return lamina::make_matrix_view(logits); }
