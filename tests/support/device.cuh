// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What tests of device code share: lane groups, kernels that run row bodies, device memory.
#pragma once

#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <vector>

#include "lamina/backend/cuda_lanes.cuh"

namespace testing {

using lamina::index_t;

using lamina::warp_lanes;

template <lamina::row_body Body>
__global__ void one_thread_a_row(Body body, index_t rows) {
  index_t const row = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row < rows) body(lamina::single_lane{}, row);
}

template <lamina::row_body Body>
__global__ void one_warp_a_row(Body body) {
  body(warp_lanes{}, index_t{blockIdx.x});
}

inline void check(cudaError_t status) {
  INFO(cudaGetErrorString(status));
  REQUIRE(status == cudaSuccess);
}

// A stream that lives as long as its scope.
class owned_stream {
 public:
  owned_stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  owned_stream(owned_stream const&) = delete;
  owned_stream& operator=(owned_stream const&) = delete;
  ~owned_stream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Device memory holding a copy of host elements.
template <class T>
class device_copy {
 public:
  explicit device_copy(std::vector<T> const& host) : size_(host.size()) {
    check(cudaMalloc(&data_, size_ * sizeof(T)));
    check(cudaMemcpy(data_, host.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  device_copy(device_copy const&) = delete;
  device_copy& operator=(device_copy const&) = delete;
  ~device_copy() { cudaFree(data_); }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::vector<T> host() const {
    check(cudaDeviceSynchronize());
    std::vector<T> result(size_);
    check(cudaMemcpy(result.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return result;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

}  // namespace testing
