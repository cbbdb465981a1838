// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The GEMM customisation point over a CBLAS library: OpenBLAS, BLIS, MKL.
#pragma once

#include <cblas.h>

#include <climits>

#include "lamina/backend/gemm.hpp"

LAMINA_NAMESPACE_BEGIN

/// GEMM by the CBLAS library the host links. Threads are the library's own: a host that runs rows
/// or whole jobs in parallel sets it to one thread (openblas_set_num_threads(1)), since threads
/// inside threads are slower than either.
///
/// Throws shape_error if a size or stride does not fit into the int that CBLAS takes, or if a row
/// stride is below the row's width.
struct cblas_gemm {
  void operator()(gemm_arguments<float> const& g) const { call(cblas_sgemm, g); }
  void operator()(gemm_arguments<double> const& g) const { call(cblas_dgemm, g); }

 private:
  template <class Function, real T>
  static void call(Function function, gemm_arguments<T> const& g) {
    if (detail::gemm_without_product(g)) return;
    bool const flip_a = g.transpose_a == transpose::yes;
    bool const flip_b = g.transpose_b == transpose::yes;
    int const rows = to_int("rows", g.rows);
    int const cols = to_int("cols", g.cols);
    int const depth = to_int("depth", g.depth);
    int const a_stride =
        stride("a", flip_a ? g.depth : g.rows, flip_a ? g.rows : g.depth, g.a_stride);
    int const b_stride =
        stride("b", flip_b ? g.cols : g.depth, flip_b ? g.depth : g.cols, g.b_stride);
    int const c_stride = stride("c", g.rows, g.cols, g.c_stride);
    function(CblasRowMajor, flip_a ? CblasTrans : CblasNoTrans, flip_b ? CblasTrans : CblasNoTrans,
             rows, cols, depth, g.alpha, g.a, a_stride, g.b, b_stride, g.beta, g.c, c_stride);
  }

  static int stride(char const* operand, index_t rows, index_t width, index_t stride) {
    return to_int(operand, detail::leading_dimension("cblas_gemm", operand, rows, width, stride));
  }
  static int to_int(char const* name, index_t size) {
    if (size > INT_MAX) {
      throw_shape_error("cblas_gemm: ", name, " has size or stride ", size, ", expected at most ",
                        INT_MAX);
    }
    return static_cast<int>(size);
  }
};

static_assert(pointer_gemm<cblas_gemm, float> && pointer_gemm<cblas_gemm, double>);

LAMINA_NAMESPACE_END
