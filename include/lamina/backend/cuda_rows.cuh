// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The executor of a device: kernels that run a row body with the threads its schedule asks for.
#pragma once

#include "lamina/backend/cuda_error.cuh"
#include "lamina/backend/cuda_lanes.cuh"

LAMINA_NAMESPACE_BEGIN

/// What a device offers a row.
struct cuda_limits {
  int device = 0;
  int compute_capability = 0;   ///< 90 for 9.0
  int block_memory = 48 << 10;  ///< bytes of shared memory that a block may have

  /// Of the current device. Throws cuda_error if there is none.
  static cuda_limits of_current_device() {
    cuda_limits limits;
    detail::check_cuda(cudaGetDevice(&limits.device), "cudaGetDevice", "the current device");
    auto const ask = [&](cudaDeviceAttr attribute, char const* name) {
      int value = 0;
      detail::check_cuda(cudaDeviceGetAttribute(&value, attribute, limits.device),
                         "cudaDeviceGetAttribute", name);
      return value;
    };
    limits.compute_capability = 10 * ask(cudaDevAttrComputeCapabilityMajor, "major version") +
                                ask(cudaDevAttrComputeCapabilityMinor, "minor version");
    limits.block_memory = ask(cudaDevAttrMaxSharedMemoryPerBlockOptin, "shared memory of a block");
    return limits;
  }
};

namespace detail {

inline constexpr unsigned row_threads = 256;
inline constexpr unsigned block_threads = 512;

template <row_body Body>
__global__ void __launch_bounds__(row_threads)
    thread_rows(Body const __grid_constant__ body, index_t rows) {
  index_t const row = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row < rows) body(single_lane{}, row);
}
template <row_body Body>
__global__ void __launch_bounds__(row_threads)
    warp_rows(Body const __grid_constant__ body, index_t rows) {
  index_t const row = index_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row < rows) body(warp_lanes{}, row);
}
template <row_body Body>
__global__ void __launch_bounds__(block_threads, 2)
    block_rows(Body const __grid_constant__ body, index_t slots) {
  body(block_lanes{slots}, index_t{blockIdx.x});
}
// Of a block whose lanes share memory: what the body says.
template <class Body>
constexpr unsigned sharing_threads() {
  if constexpr (requires { Body::lane_count; }) {
    return Body::lane_count;
  } else {
    return row_threads;
  }
}
template <row_body Body>
__global__ void __launch_bounds__(sharing_threads<Body>(), 2)
    sharing_rows(Body const __grid_constant__ body) {
  body(block_lanes{0}, index_t{blockIdx.x});
}
template <row_body Body>
__global__ void __launch_bounds__(row_threads, 5)
    cluster_rows(Body const __grid_constant__ body, index_t slots, unsigned blocks) {
  cluster_lanes const lanes{slots};
  lanes.begin();
  body(lanes, index_t{blockIdx.x / blocks});
}

// Bytes of a row that are worth keeping on the chip: what the body says.
template <class Body>
index_t kept_bytes(Body const& body) {
  if constexpr (requires { body.kept_bytes(); }) {
    return body.kept_bytes();
  } else {
    return 0;
  }
}

}  // namespace detail

/// Runs row bodies on a stream, with one thread, one warp, one block or one cluster of blocks a
/// row, as Body::schedule says. Does not wait.
///
/// A body of blocks or clusters may say kept_bytes(): what its lanes would like to keep of a row.
/// They get slots for all of it where it fits on the chip, for a part of it elsewhere. Without
/// clusters (compute capability below 9.0) a cluster is one block. A body of blocks that says
/// shared_bytes() gets one block a row with as much shared memory, of 256 threads, or lane_count.
struct cuda_rows {
  cudaStream_t stream;
  cuda_limits limits;

  /// Throws cuda_error if the launch is refused, for want of shared memory say; nothing has been
  /// done then.
  template <row_body Body>
  void run(index_t rows, Body const& body) const {
    if (rows <= 0) return;
    constexpr row_schedule schedule = schedule_of<Body>();
    if constexpr (schedule == row_schedule::thread) {
      launch(detail::thread_rows<Body>, rows, blocks_of(rows, detail::row_threads),
             dim3(detail::row_threads), 0, 1, body, rows);
    } else if constexpr (schedule == row_schedule::warp) {
      constexpr unsigned warps = detail::row_threads / 32;
      launch(detail::warp_rows<Body>, rows, blocks_of(rows, warps), dim3(32, warps), 0, 1, body,
             rows);
    } else if constexpr (sharing_body<Body>) {
      static_assert(schedule == row_schedule::block, "lamina: the lanes of a block share memory");
      launch(detail::sharing_rows<Body>, rows, rows, dim3(detail::sharing_threads<Body>()),
             body.shared_bytes(), 1, body);
    } else {
      // Blocks share a multiprocessor, so that some compute while others wait for memory: three, or
      // five where a cluster makes the parts of a row that small.
      index_t const wanted = detail::kept_bytes(body), most = limits.block_memory / 3 - (4 << 10);
      if constexpr (schedule == row_schedule::cluster) {
        if (limits.compute_capability >= 90) {
          unsigned blocks = 1;
          while (blocks < 8 && wanted > blocks * (limits.block_memory / 5 - (4 << 10))) blocks *= 2;
          index_t const slots = slots_of((wanted + blocks - 1) / blocks, most, detail::row_threads);
          launch(detail::cluster_rows<Body>, rows, blocks * rows, dim3(detail::row_threads),
                 slots * detail::row_threads * slot_bytes, blocks, body, slots, blocks);
          return;
        }
      }
      unsigned const threads = wanted <= most ? detail::row_threads : detail::block_threads;
      index_t const slots = slots_of(wanted, most, threads);
      launch(detail::block_rows<Body>, rows, rows, dim3(threads), slots * threads * slot_bytes, 1,
             body, slots);
    }
  }

 private:
  static constexpr index_t blocks_of(index_t rows, unsigned rows_each) {
    return (rows + rows_each - 1) / rows_each;
  }
  // Slots of each thread of a block that would keep `wanted` bytes and may have `most`.
  static constexpr index_t slots_of(index_t wanted, index_t most, index_t threads) {
    index_t const row = threads * slot_bytes;
    index_t const needed = (wanted + row - 1) / row;
    return needed * row <= most ? needed : most / row;
  }

  template <class Kernel, class... Arguments>
  void launch(Kernel* kernel, index_t rows, index_t blocks, dim3 threads, index_t memory,
              unsigned cluster, Arguments const&... arguments) const {
    if (blocks > 0x7fffffff) {
      LAMINA_THROW(cuda_error, detail::join("cuda_rows::run: ", rows, " rows need ", blocks,
                                            " blocks, a launch has 2147483647 at most"));
    }
    if (memory > (48 << 10)) {
      // As much as there is, whatever this launch needs: other threads may launch the same kernel.
      void const* const function = reinterpret_cast<void const*>(kernel);
      cudaFuncAttributes own{};
      detail::check_cuda(cudaFuncGetAttributes(&own, function), "cudaFuncGetAttributes",
                         "a row kernel");
      int const room = limits.block_memory - static_cast<int>(own.sharedSizeBytes);
      detail::check_cuda(
          cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, room),
          "cudaFuncSetAttribute", room, " bytes of shared memory");
      detail::check_cuda(
          cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout,
                               cudaSharedmemCarveoutMaxShared),
          "cudaFuncSetAttribute", "more shared memory than cache");
    }
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = threads;
    config.dynamicSmemBytes = static_cast<std::size_t>(memory);
    config.stream = stream;
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = cluster;
    attribute.val.clusterDim.y = 1;
    attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = cluster > 1 ? 1 : 0;
    detail::check_cuda(cudaLaunchKernelEx(&config, kernel, arguments...), "cudaLaunchKernelEx",
                       rows, " rows, ", memory, " bytes of shared memory a block");
  }
};

LAMINA_NAMESPACE_END
