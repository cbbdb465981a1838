// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The GEMM that examples and benchmarks are built with, the CMake option LAMINA_GEMM, and the
// storage: Eigen's, or xtensor's in the benchmarks that hold one against the other.
#pragma once

#include <concepts>
#include <type_traits>

#include "lamina/backend/eigen.hpp"

#if defined(LAMINA_EXAMPLE_XTENSOR)
#include "lamina/backend/xtensor.hpp"
#endif
#if defined(LAMINA_EXAMPLE_GEMM_CBLAS)
#include "lamina/backend/gemm_cblas.hpp"
#elif defined(LAMINA_EXAMPLE_GEMM_ONEDNN)
#include "lamina/backend/gemm_onednn.hpp"
#endif

namespace examples {

#if defined(LAMINA_EXAMPLE_GEMM_CBLAS)
extern "C" __attribute__((weak)) void openblas_set_num_threads(int);

/// CBLAS on the calling thread: OpenBLAS would start threads of its own inside those of a program.
struct serial_cblas_gemm {
  template <lamina::real T>
  void operator()(lamina::gemm_arguments<T> const& g) const {
    [[maybe_unused]] static bool const once = [] {
      if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
      return true;
    }();
    lamina::cblas_gemm{}(g);
  }
};
template <lamina::real T>
using chosen_gemm = serial_cblas_gemm;
inline constexpr char const* chosen_gemm_name = "CBLAS";
#elif defined(LAMINA_EXAMPLE_GEMM_ONEDNN)
/// oneDNN multiplies floats only; doubles stay with Eigen.
template <lamina::real T>
using chosen_gemm =
    std::conditional_t<std::same_as<T, float>, lamina::onednn_gemm, lamina::eigen_gemm>;
inline constexpr char const* chosen_gemm_name = "oneDNN";
#else
template <lamina::real T>
using chosen_gemm = lamina::eigen_gemm;
inline constexpr char const* chosen_gemm_name = "Eigen";
#endif

/// Products by the chosen GEMM; rows on the calling thread, unless a hook says otherwise.
template <lamina::real T, lamina::parallel_for ParallelFor = lamina::serial_for>
#if defined(LAMINA_EXAMPLE_XTENSOR)
using chosen_backend = lamina::xtensor_backend<T, ParallelFor, chosen_gemm<T>>;
#else
using chosen_backend = lamina::eigen_backend<T, ParallelFor, chosen_gemm<T>>;
#endif

}  // namespace examples
