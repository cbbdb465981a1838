// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The Eigen backend: row-major Eigen matrices, rows and panels of products through a parallel_for
// hook, a chosen GEMM; and what Eigen holds as views.
#pragma once

#include <Eigen/Core>

#include "lamina/backend/backend.hpp"
#include "lamina/backend/foreign.hpp"
#include "lamina/backend/gemm.hpp"

LAMINA_NAMESPACE_BEGIN

/// GEMM by Eigen's own kernels, on the calling thread.
struct eigen_gemm {
  template <real T>
  void operator()(gemm_arguments<T> const& g) const {
    if (g.rows == 0 || g.cols == 0) return;
    using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using in_map = Eigen::Map<matrix const, 0, Eigen::OuterStride<>>;
    using out_map = Eigen::Map<matrix, 0, Eigen::OuterStride<>>;
    bool const flip_a = g.transpose_a == transpose::yes;
    bool const flip_b = g.transpose_b == transpose::yes;
    out_map c(g.c, g.rows, g.cols, Eigen::OuterStride<>(g.c_stride));
    if (g.beta == T(0)) {
      c.setZero();
    } else if (g.beta != T(1)) {
      c *= g.beta;
    }
    if (g.depth == 0) return;
    in_map const a(g.a, flip_a ? g.depth : g.rows, flip_a ? g.rows : g.depth,
                   Eigen::OuterStride<>(g.a_stride));
    in_map const b(g.b, flip_b ? g.cols : g.depth, flip_b ? g.depth : g.cols,
                   Eigen::OuterStride<>(g.b_stride));
    if (flip_a && flip_b) {
      c.noalias() += g.alpha * (a.transpose() * b.transpose());
    } else if (flip_a) {
      c.noalias() += g.alpha * (a.transpose() * b);
    } else if (flip_b) {
      c.noalias() += g.alpha * (a * b.transpose());
    } else {
      c.noalias() += g.alpha * (a * b);
    }
  }
};

/// Host backend over Eigen storage.
///
/// ParallelFor  how rows and panels of products are spread over threads; serial by default
/// Gemm         the matrix product; Eigen's by default
template <real T = float, parallel_for ParallelFor = serial_for, pointer_gemm<T> Gemm = eigen_gemm>
struct eigen_backend {
  using scalar_type = T;
  using matrix_type = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  ParallelFor parallel{};
  Gemm product{};

  /// Zeroed storage [rows, cols].
  matrix_type make_matrix(index_t rows, index_t cols) const {
    matrix_type matrix = matrix_type::Zero(rows, cols);
    return matrix;
  }

  static matrix_view<T> view(matrix_type& m) noexcept { return {m.data(), m.rows(), m.cols()}; }
  static matrix_view<T const> view(matrix_type const& m) noexcept {
    return {m.data(), m.rows(), m.cols()};
  }

  host_rows<ParallelFor> executor() const { return {parallel, 1}; }

  /// c = alpha op(a) op(b) + beta c. Throws shape_error if the shapes do not fit.
  void gemm(transpose ta, transpose tb, T alpha, matrix_view<T const> a, matrix_view<T const> b,
            T beta, matrix_view<T> c) const {
    gemm_in_panels(parallel, product, make_gemm_arguments<T>(ta, tb, alpha, a, b, beta, c));
  }
};

/// Row-major matrices, arrays, maps, references and blocks of Eigen, and its vectors: a column
/// vector is a matrix [size, 1].
template <class X>
requires std::derived_from<X, Eigen::EigenBase<X>>
struct tensor_traits<X> {
  static_assert((static_cast<int>(X::Flags) & static_cast<int>(Eigen::DirectAccessBit)) != 0,
                "lamina: an Eigen expression has no memory; evaluate it into a matrix first");
  static constexpr bool is_column = static_cast<int>(X::ColsAtCompileTime) == 1;
  static_assert(static_cast<bool>(X::IsRowMajor) || is_column,
                "lamina: this Eigen matrix is column-major, its rows are not contiguous; declare "
                "it with Eigen::RowMajor");
  static constexpr int inner = static_cast<int>(X::InnerStrideAtCompileTime);
  static_assert(inner == 1 || inner == Eigen::Dynamic || is_column,
                "lamina: this Eigen matrix has an inner stride, its rows are not contiguous; copy "
                "it into a matrix first");

  static auto* data(auto& x) { return x.data(); }
  static index_t rank(X const&) { return 2; }
  static index_t extent(X const& x, index_t axis) { return axis == 0 ? x.rows() : x.cols(); }
  static index_t stride(X const& x, index_t axis) {
    return (axis == 0) == static_cast<bool>(X::IsRowMajor) ? x.outerStride() : x.innerStride();
  }
};

static_assert(check_backend<eigen_backend<float>>());
static_assert(check_backend<eigen_backend<double>>());

LAMINA_NAMESPACE_END
