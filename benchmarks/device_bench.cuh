// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What benchmarks on a device share: their stream, their clock, and what they say where there is
// none.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdio>

#include "benchmarks/fill.hpp"
#include "lamina/backend/cuda.cuh"

namespace lamina::benchmarks {

inline cudaStream_t stream() {
  static cudaStream_t const stream = [] {
    cudaStream_t created = nullptr;
    detail::check_cuda(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking),
                       "cudaStreamCreateWithFlags", "a stream");
    return created;
  }();
  return stream;
}

// Seconds that what f asks for takes on the device.
template <class F>
double seconds(F const& f) {
  cudaEvent_t begin = nullptr, end = nullptr;
  detail::check_cuda(cudaEventCreate(&begin), "cudaEventCreate", "begin");
  detail::check_cuda(cudaEventCreate(&end), "cudaEventCreate", "end");
  detail::check_cuda(cudaEventRecord(begin, stream()), "cudaEventRecord", "begin");
  f();
  detail::check_cuda(cudaEventRecord(end, stream()), "cudaEventRecord", "end");
  detail::check_cuda(cudaEventSynchronize(end), "cudaEventSynchronize", "end");
  float milliseconds = 0;
  detail::check_cuda(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime", "");
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return static_cast<double>(milliseconds) / 1000;
}

// For main: runs the benchmarks, or says that there is no device and returns 77.
inline int run(int argc, char** argv) {
  int device_count = 0;
  cudaError_t const status = cudaGetDeviceCount(&device_count);
  if (status != cudaSuccess || device_count == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(status));
    return 77;
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace lamina::benchmarks
