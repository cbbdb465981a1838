// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The CUDA backend: device memory, row kernels and cuBLAS products on a stream of the host.
#pragma once

#include <memory>

#include "lamina/backend/cuda_memory.cuh"
#include "lamina/backend/cuda_rows.cuh"
#include "lamina/backend/device_vector.hpp"
#include "lamina/backend/gemm.hpp"

LAMINA_NAMESPACE_BEGIN

/// What a cuda_backend uses besides its stream.
template <cuda_allocator Allocator = stream_ordered_allocator>
struct cuda_options {
  Allocator allocator{};
  /// The host's own handle, on the same device; null: the backend makes one. A handle serves one
  /// stream at a time.
  cublasHandle_t cublas = nullptr;
  /// Products of float may round their operands to TF32 (10 bits), several times faster.
  bool tensor_float = false;
};

namespace detail {

template <storage_scalar T>
constexpr cudaDataType_t cuda_type() {
  if constexpr (std::same_as<T, double>) {
    return CUDA_R_64F;
  } else if constexpr (std::same_as<T, float>) {
    return CUDA_R_32F;
  } else if constexpr (std::same_as<T, bf16>) {
    return CUDA_R_16BF;
  } else {
    return CUDA_R_16F;
  }
}

// A cuBLAS handle with a workspace of its own, so that products can be captured in a graph.
template <cuda_allocator Allocator>
class cublas_owner {
 public:
  cublas_owner(Allocator const& allocator, cudaStream_t stream)
      : workspace_(allocator, stream, std::size_t{32} << 20) {
    check_cublas(cublasCreate(&handle_), "cublasCreate", "a handle for the current device");
    cublasStatus_t status = cublasSetStream(handle_, stream);
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = cublasSetWorkspace(handle_, workspace_.data(), workspace_.size());
    }
    if (status == CUBLAS_STATUS_SUCCESS) return;
    cublasDestroy(handle_);
    check_cublas(status, "cublasSetWorkspace", workspace_.size(), " bytes");
  }
  cublas_owner(cublas_owner const&) = delete;
  cublas_owner& operator=(cublas_owner const&) = delete;
  ~cublas_owner() { cublasDestroy(handle_); }

  cublasHandle_t handle() const noexcept { return handle_; }

 private:
  cuda_bytes<Allocator> workspace_;
  cublasHandle_t handle_ = nullptr;
};

// c = beta c, for products over nothing.
template <storage_scalar T>
struct scale_rows_body {
  matrix_view<T> c;
  compute_t<T> beta;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    for (index_t i = lanes.lane(); i < c.cols; i += lanes.count()) {
      c(row, i) =
          static_cast<T>(beta == 0 ? compute_t<T>(0) : beta * static_cast<compute_t<T>>(c(row, i)));
    }
  }
};

}  // namespace detail

/// Backend over a CUDA device and a stream of the host. Copies share the stream and the cuBLAS
/// handle, and have to be used by one thread at a time; several backends, each with its stream, may
/// be used at once, on several devices too. Nothing but synchronize() waits, and all work can be
/// captured in a CUDA graph. The stream's device has to be the current device of the calling
/// thread; lamina sets none.
///
/// T          what the backend computes in; matrices of bf16 and f16 are multiplied with sums in
///            float
/// Allocator  where memory comes from
template <real T = float, cuda_allocator Allocator = stream_ordered_allocator>
class cuda_backend {
 public:
  using scalar_type = T;
  using matrix_type = cuda_matrix<T, Allocator>;
  using bytes_type = cuda_bytes<Allocator>;

  /// Throws config_error for a null stream (the legacy default stream waits for others and cannot
  /// be captured: use cudaStreamCreateWithFlags, or cudaStreamPerThread), and cuda_error if there
  /// is no device or a handle cannot be made.
  explicit cuda_backend(cudaStream_t stream, cuda_options<Allocator> const& options = {})
      : stream_(checked(stream)),
        options_(options),
        limits_(cuda_limits::of_current_device()),
        cublas_(options.cublas != nullptr ? nullptr
                                          : std::make_shared<detail::cublas_owner<Allocator>>(
                                                options.allocator, stream)) {}

  cudaStream_t stream() const noexcept { return stream_; }
  /// Waits for all work of the stream. Throws cuda_error if some of it failed.
  void synchronize() const {
    detail::check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize",
                       "the backend's stream");
  }

  /// Zeroed storage [rows, cols].
  matrix_type make_matrix(index_t rows, index_t cols) const {
    return {rows, cols, make_bytes(static_cast<std::size_t>(rows * cols) * sizeof(T))};
  }
  bytes_type make_bytes(std::size_t n) const { return {options_.allocator, stream_, n}; }
  static matrix_view<T> view(matrix_type& m) noexcept { return m.view(); }
  static matrix_view<T const> view(matrix_type const& m) noexcept { return m.view(); }

  cuda_rows executor() const noexcept { return {stream_, limits_}; }
  cuda_limits const& limits() const noexcept { return limits_; }

  void copy(void* to, void const* from, std::size_t n) const {
    detail::check_cuda(cudaMemcpyAsync(to, from, n, cudaMemcpyDefault, stream_), "cudaMemcpyAsync",
                       n, " bytes");
  }
  /// Memory of this device, managed memory, and pinned memory of the host.
  bool reaches(void const* p) const noexcept {
    cudaPointerAttributes attributes{};
    if (cudaPointerGetAttributes(&attributes, p) != cudaSuccess) {
      cudaGetLastError();
      return false;
    }
    return attributes.type == cudaMemoryTypeManaged || attributes.type == cudaMemoryTypeHost ||
           (attributes.type == cudaMemoryTypeDevice && attributes.device == limits_.device);
  }

  /// c = alpha op(a) op(b) + beta c, row-major. Throws shape_error if the shapes do not fit.
  void gemm(transpose ta, transpose tb, T alpha, matrix_view<T const> a, matrix_view<T const> b,
            T beta, matrix_view<T> c) const {
    gemm<T, T>(ta, tb, alpha, a, b, beta, c);
  }
  /// The same where operands are stored narrower than what is computed in; sums are kept in T and
  /// rounded once.
  template <storage_scalar In, storage_scalar Out>
  requires std::same_as<compute_t<In>, T> && std::same_as<compute_t<Out>, T>
  void gemm(transpose ta, transpose tb, T alpha, matrix_view<In const> a, matrix_view<In const> b,
            T beta, matrix_view<Out> c) const {
    static_assert(std::same_as<Out, In> || std::same_as<Out, T>,
                  "lamina: cuBLAS stores a product as its operands are stored, or in what it is "
                  "computed in");
    auto const shape = detail::shape_of_product(ta, tb, a, b, c);
    if (shape.rows == 0 || shape.cols == 0) return;
    if (shape.depth == 0) {
      executor().run(c.rows, detail::scale_rows_body<Out>{c, beta});
      return;
    }
    auto const operation = [](transpose t) {
      return t == transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N;
    };
    auto const stride = [](auto const& m) { return m.stride > m.cols ? m.stride : m.cols; };
    cublasComputeType_t const compute = std::same_as<T, double> ? CUBLAS_COMPUTE_64F
                                        : std::same_as<In, float> && options_.tensor_float
                                            ? CUBLAS_COMPUTE_32F_FAST_TF32
                                            : CUBLAS_COMPUTE_32F;
    cublasHandle_t const handle = cublas();
    // cuBLAS counts by columns: what it calls c is our c transposed, so the operands change places.
    detail::check_cublas(
        cublasGemmEx_64(handle, operation(tb), operation(ta), shape.cols, shape.rows, shape.depth,
                        &alpha, b.data, detail::cuda_type<In>(), stride(b), a.data,
                        detail::cuda_type<In>(), stride(a), &beta, c.data, detail::cuda_type<Out>(),
                        stride(c), compute, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx", shape.rows, " x ", shape.cols, " x ", shape.depth);
  }

  /// The handle that products use, set to the backend's stream.
  cublasHandle_t cublas() const {
    if (cublas_ != nullptr) return cublas_->handle();
    detail::check_cublas(cublasSetStream(options_.cublas, stream_), "cublasSetStream",
                         "the host's handle");
    return options_.cublas;
  }

 private:
  static cudaStream_t checked(cudaStream_t stream) {
    if (stream == nullptr || stream == cudaStreamLegacy) {
      throw_config_error("cuda_backend: stream is ",
                         stream == nullptr ? "null" : "cudaStreamLegacy",
                         ", expected a stream of the host's, such as one from "
                         "cudaStreamCreateWithFlags, or cudaStreamPerThread");
    }
    return stream;
  }

  cudaStream_t stream_;
  cuda_options<Allocator> options_;
  cuda_limits limits_;
  std::shared_ptr<detail::cublas_owner<Allocator>> cublas_;
};

static_assert(check_device_backend<cuda_backend<float>>());
static_assert(check_device_backend<cuda_backend<double>>());

LAMINA_NAMESPACE_END
