// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What CUDA and its libraries refuse, as exceptions.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include "lamina/core/error.hpp"

LAMINA_NAMESPACE_BEGIN

/// A CUDA call or launch failed: names the call, what it was about, and CUDA's own text.
struct cuda_error : device_error {
  using device_error::device_error;
};

namespace detail {

// `about` says what was asked for: "1024 bytes", "37 rows". Clears the error, so that it is not
// reported again by somebody else's check; one that ruined the context stays.
template <class... About>
void check_cuda(cudaError_t status, char const* call, About const&... about) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  LAMINA_THROW(cuda_error, join(call, " (", about..., "): ", cudaGetErrorString(status)));
}

template <class... About>
void check_cublas(cublasStatus_t status, char const* call, About const&... about) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  LAMINA_THROW(cuda_error, join(call, " (", about..., "): ", cublasGetStatusString(status)));
}

}  // namespace detail

LAMINA_NAMESPACE_END
