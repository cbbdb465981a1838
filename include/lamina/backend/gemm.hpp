// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The pointer-level GEMM customisation point, shared by the host backends.
#pragma once

#include <concepts>

#include "lamina/backend/backend.hpp"
#include "lamina/core/error.hpp"

LAMINA_NAMESPACE_BEGIN

/// c[rows, cols] = alpha op(a)[rows, depth] op(b)[depth, cols] + beta c, row-major pointers with
/// row strides in elements. With beta 0, c is written without being read. Sizes may be 0.
template <class T>
struct gemm_arguments {
  transpose transpose_a = transpose::no;
  transpose transpose_b = transpose::no;
  index_t rows = 0;
  index_t cols = 0;
  index_t depth = 0;
  T alpha = T(1);
  T const* a = nullptr;
  index_t a_stride = 0;
  T const* b = nullptr;
  index_t b_stride = 0;
  T beta = T(0);
  T* c = nullptr;
  index_t c_stride = 0;
};

/// A stateless GEMM over pointers: eigen_gemm, cblas_gemm, onednn_gemm, or the host's own.
template <class G>
concept pointer_gemm = std::copy_constructible<G> &&
    requires(G const& gemm, gemm_arguments<float> f, gemm_arguments<double> d) {
  gemm(f);
  gemm(d);
};

/// Checks shapes once and fills the pointer form. Throws shape_error if op(a), op(b) and c do not
/// fit together.
template <real T>
gemm_arguments<T> make_gemm_arguments(transpose ta, transpose tb, T alpha, matrix_view<T const> a,
                                      matrix_view<T const> b, T beta, matrix_view<T> c) {
  bool const flip_a = ta == transpose::yes;
  bool const flip_b = tb == transpose::yes;
  index_t const rows = flip_a ? a.cols : a.rows;
  index_t const depth = flip_a ? a.rows : a.cols;
  index_t const depth_b = flip_b ? b.cols : b.rows;
  index_t const cols = flip_b ? b.rows : b.cols;
  if (rows != c.rows || cols != c.cols || depth != depth_b) {
    throw_shape_error("gemm: op(a) is ", rows, " x ", depth, ", op(b) is ", depth_b, " x ", cols,
                      ", c is ", c.rows, " x ", c.cols, "; expected c = op(a) op(b)");
  }
  return {ta,       tb,     rows,     cols, depth,  alpha,   a.data,
          a.stride, b.data, b.stride, beta, c.data, c.stride};
}

LAMINA_NAMESPACE_END
