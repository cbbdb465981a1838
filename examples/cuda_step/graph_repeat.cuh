// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A step that needs no host, captured once in a CUDA graph and launched as often as it is wanted.
#pragma once

#include <cuda_runtime_api.h>

#include "lamina/backend/cuda_error.cuh"

namespace cuda_step {

/// Asks for the first step as it is, so that memory grows to what it needs, and for the others as
/// launches of a graph. Does not wait.
struct graph_repeat {
  cudaStream_t stream;

  template <class Step>
  void operator()(lamina::index_t count, Step const& step) const {
    using lamina::detail::check_cuda;
    if (count > 0) step();
    if (count < 2) return;
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture", "a step");
    cudaGraph_t graph = nullptr;
    try {
      step();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);  // or the stream would never work again
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture", "a step");
    cudaGraphExec_t launches = nullptr;
    cudaError_t status = cudaGraphInstantiate(&launches, graph, 0);
    cudaGraphDestroy(graph);
    check_cuda(status, "cudaGraphInstantiate", "a step");
    for (lamina::index_t i = 1; i < count && status == cudaSuccess; ++i) {
      status = cudaGraphLaunch(launches, stream);
    }
    cudaGraphExecDestroy(launches);  // once it has run
    check_cuda(status, "cudaGraphLaunch", "a step");
  }
};

}  // namespace cuda_step
