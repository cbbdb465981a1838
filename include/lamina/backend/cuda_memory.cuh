// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Device memory in the order of a stream, from an allocator that a host may replace.
#pragma once

#include <cstddef>
#include <utility>

#include "lamina/backend/cuda_error.cuh"
#include "lamina/core/view.hpp"

LAMINA_NAMESPACE_BEGIN

/// Where a cuda_backend gets its memory.
///
/// allocate(bytes, stream)         memory aligned to 256 bytes that work asked for on the stream
///                                 from now on may use; throws where there is none
/// deallocate(data, bytes, stream) takes it back once the work asked for so far is done; noexcept
template <class A>
concept cuda_allocator = std::copy_constructible<A> &&
    requires(A const& allocator, std::size_t bytes, void* data, cudaStream_t stream) {
  { allocator.allocate(bytes, stream) } -> std::same_as<void*>;
  { allocator.deallocate(data, bytes, stream) }
  noexcept;
};

/// The device's own pool, in the order of the stream: never waits, may be captured in a graph.
struct stream_ordered_allocator {
  void* allocate(std::size_t bytes, cudaStream_t stream) const {
    void* data = nullptr;
    detail::check_cuda(cudaMallocAsync(&data, bytes, stream), "cudaMallocAsync", bytes, " bytes");
    return data;
  }
  void deallocate(void* data, std::size_t, cudaStream_t stream) const noexcept {
    cudaFreeAsync(data, stream);
  }
};
static_assert(cuda_allocator<stream_ordered_allocator>);

/// Owns bytes of device memory, zeroed in the order of the stream. Movable. The stream has to
/// outlive it.
template <cuda_allocator Allocator>
class cuda_bytes {
 public:
  cuda_bytes(Allocator const& allocator, cudaStream_t stream, std::size_t size)
      : allocator_(allocator), stream_(stream), size_(size) {
    if (size_ == 0) return;
    data_ = allocator_.allocate(size_, stream_);
    cudaError_t const status = cudaMemsetAsync(data_, 0, size_, stream_);
    if (status == cudaSuccess) return;
    allocator_.deallocate(data_, size_, stream_);
    detail::check_cuda(status, "cudaMemsetAsync", size_, " bytes");
  }
  cuda_bytes(cuda_bytes&& other) noexcept
      : allocator_(other.allocator_),
        stream_(other.stream_),
        size_(std::exchange(other.size_, 0)),
        data_(std::exchange(other.data_, nullptr)) {}
  cuda_bytes& operator=(cuda_bytes&& other) noexcept {
    std::swap(allocator_, other.allocator_);
    std::swap(stream_, other.stream_);
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~cuda_bytes() {
    if (data_ != nullptr) allocator_.deallocate(data_, size_, stream_);
  }

  /// Null if there are none.
  void* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  Allocator allocator_;
  cudaStream_t stream_;
  std::size_t size_;
  void* data_ = nullptr;
};

/// A row-major matrix [rows, cols] in device memory.
template <class T, cuda_allocator Allocator>
struct cuda_matrix {
  index_t rows;
  index_t cols;
  cuda_bytes<Allocator> bytes;

  matrix_view<T> view() noexcept { return {static_cast<T*>(bytes.data()), rows, cols}; }
  matrix_view<T const> view() const noexcept {
    return {static_cast<T const*>(bytes.data()), rows, cols};
  }
};

LAMINA_NAMESPACE_END
