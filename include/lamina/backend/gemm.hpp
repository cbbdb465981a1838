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

/// A GEMM over pointers to T: eigen_gemm, plain_gemm, cblas_gemm, onednn_gemm (float only), or the
/// host's own.
template <class G, class T>
concept pointer_gemm = std::copy_constructible<G> &&
    requires(G const& gemm, gemm_arguments<T> const& arguments) {
  gemm(arguments);
};

namespace detail {

// What BLAS libraries do not agree on: a product without elements, and c = beta c when the depth is
// 0. Returns whether that was all there is to do.
template <real T>
bool gemm_without_product(gemm_arguments<T> const& g) {
  if (g.rows == 0 || g.cols == 0) return true;
  if (g.depth != 0) return false;
  for (index_t row = 0; row < g.rows; ++row) {
    T* const c = g.c + row * g.c_stride;
    for (index_t col = 0; col < g.cols; ++col) c[col] = g.beta == T(0) ? T(0) : g.beta * c[col];
  }
  return true;
}

// The row stride as BLAS takes it: never below the row's width, which a lone row may leave open.
inline index_t leading_dimension(char const* function, char const* operand, index_t rows,
                                 index_t width, index_t stride) {
  if (stride >= width) return stride;
  if (rows > 1) {
    throw_shape_error(function, ": ", operand, " has row stride ", stride,
                      ", expected at least its ", width, " columns");
  }
  return width;
}

}  // namespace detail

namespace detail {

struct product_shape {
  index_t rows, cols, depth;
};

// Of c = op(a) op(b). Throws shape_error if the three do not fit together.
template <class A, class B, class C>
product_shape shape_of_product(transpose ta, transpose tb, matrix_view<A> a, matrix_view<B> b,
                               matrix_view<C> c) {
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
  return {rows, cols, depth};
}

}  // namespace detail

/// Checks shapes once and fills the pointer form. Throws shape_error if op(a), op(b) and c do not
/// fit together.
template <real T>
gemm_arguments<T> make_gemm_arguments(transpose ta, transpose tb, T alpha, matrix_view<T const> a,
                                      matrix_view<T const> b, T beta, matrix_view<T> c) {
  detail::product_shape const shape = detail::shape_of_product(ta, tb, a, b, c);
  return {ta,       tb,     shape.rows, shape.cols, shape.depth, alpha,   a.data,
          a.stride, b.data, b.stride,   beta,       c.data,      c.stride};
}

/// The most columns, or rows, of a panel of gemm_in_panels: few enough that threads share the work
/// of a decoding step, enough that nothing is lost by packing the other operand again.
inline constexpr index_t gemm_panel = 384;

/// Runs a product in panels of c through a parallel_for hook. Panels run along the longer side of c
/// and depend on sizes alone, so results have the same bits for any number of threads.
template <parallel_for ParallelFor, class Gemm, real T>
void gemm_in_panels(ParallelFor const& parallel, Gemm const& gemm, gemm_arguments<T> const& g) {
  bool const by_rows = g.rows > g.cols;
  index_t const length = by_rows ? g.rows : g.cols;
  index_t const count = (length + gemm_panel - 1) / gemm_panel;
  if (count <= 1) {
    gemm(g);
    return;
  }
  index_t const whole_vectors = 16;
  index_t const size =
      (length + count * whole_vectors - 1) / (count * whole_vectors) * whole_vectors;
  parallel(count, 1, [&](index_t begin, index_t end) {
    for (index_t panel = begin; panel < end; ++panel) {
      index_t const first = panel * size;
      index_t const rest = length - first;
      if (rest <= 0) continue;
      gemm_arguments<T> part = g;
      if (by_rows) {
        part.rows = rest < size ? rest : size;
        part.a += g.transpose_a == transpose::yes ? first : first * g.a_stride;
        part.c += first * g.c_stride;
      } else {
        part.cols = rest < size ? rest : size;
        part.b += g.transpose_b == transpose::yes ? first * g.b_stride : first;
        part.c += first;
      }
      gemm(part);
    }
  });
}

LAMINA_NAMESPACE_END
