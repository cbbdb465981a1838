// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The GEMM customisation point over oneDNN, in float: oneDNN has no double GEMM.
#pragma once

#include <oneapi/dnnl/dnnl.h>

#include "lamina/backend/gemm.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// OpenMP's functions where oneDNN brought an OpenMP into the process, null where it did not. Weak,
// so that nobody has to link OpenMP for a oneDNN that runs on something else.
extern "C" {
__attribute__((weak)) int omp_get_max_threads();
__attribute__((weak)) void omp_set_num_threads(int);
}

// One OpenMP thread for the products of the calling thread, and what it was afterwards.
class one_openmp_thread {
 public:
  one_openmp_thread() {
    if (omp_get_max_threads == nullptr || omp_set_num_threads == nullptr) return;
    before_ = omp_get_max_threads();
    if (before_ > 1) omp_set_num_threads(1);
  }
  ~one_openmp_thread() {
    if (before_ > 1) omp_set_num_threads(before_);
  }
  one_openmp_thread(one_openmp_thread const&) = delete;
  one_openmp_thread& operator=(one_openmp_thread const&) = delete;

 private:
  int before_ = 0;
};

}  // namespace detail

/// GEMM by oneDNN's dnnl_sgemm, on the calling thread: a oneDNN over OpenMP would start threads of
/// its own inside those of the host. Models pointer_gemm for float only, so that a double backend
/// over it does not compile.
///
/// Throws shape_error if a row stride is below the row's width, and config_error if oneDNN refuses
/// the call.
struct onednn_gemm {
  void operator()(gemm_arguments<float> const& g) const {
    if (detail::gemm_without_product(g)) return;
    bool const flip_a = g.transpose_a == transpose::yes;
    bool const flip_b = g.transpose_b == transpose::yes;
    index_t const a_stride = detail::leading_dimension(
        "onednn_gemm", "a", flip_a ? g.depth : g.rows, flip_a ? g.rows : g.depth, g.a_stride);
    index_t const b_stride = detail::leading_dimension(
        "onednn_gemm", "b", flip_b ? g.cols : g.depth, flip_b ? g.depth : g.cols, g.b_stride);
    index_t const c_stride =
        detail::leading_dimension("onednn_gemm", "c", g.rows, g.cols, g.c_stride);
    detail::one_openmp_thread const single;
    dnnl_status_t const status =
        dnnl_sgemm(flip_a ? 'T' : 'N', flip_b ? 'T' : 'N', g.rows, g.cols, g.depth, g.alpha, g.a,
                   a_stride, g.b, b_stride, g.beta, g.c, c_stride);
    if (status != dnnl_success) {
      throw_config_error("onednn_gemm: dnnl_sgemm of ", g.rows, " x ", g.cols, " x ", g.depth,
                         " returned status ", static_cast<int>(status), ", expected 0");
    }
  }
};

static_assert(pointer_gemm<onednn_gemm, float> && !pointer_gemm<onednn_gemm, double>);

LAMINA_NAMESPACE_END
