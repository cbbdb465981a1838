// expect: lamina: this Eigen matrix has an inner stride
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/eigen.hpp"

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
#ifdef LAMINA_FIXED
using map = Eigen::Map<matrix, 0, Eigen::OuterStride<>>;
#else
using map = Eigen::Map<matrix, 0, Eigen::InnerStride<2>>;
#endif

lamina::matrix_view<float> view(map& logits) { return lamina::make_matrix_view(logits); }
