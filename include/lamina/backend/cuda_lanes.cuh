// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Groups of threads of a device that work a row together: a warp, a block, a cluster of blocks.
#pragma once

#include <cooperative_groups.h>

#include "lamina/core/lanes.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

struct add_values {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct greater_value {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b > a ? b : a;
  }
};

// Butterflies: the same value, with the same bits, in every lane.
template <class T, class Combine>
__device__ T combine_warp(T value, Combine combine) {
  for (int step = 16; step > 0; step /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, step));
  }
  return value;
}

// Of a block of whole warps. In warp order, so that nothing depends on timing.
template <class T, class Combine>
__device__ T combine_block(T value, Combine combine) {
  __shared__ T partial[32];
  unsigned const warp = threadIdx.x / 32, warps = blockDim.x / 32;
  value = combine_warp(value, combine);
  if (threadIdx.x % 32 == 0) partial[warp] = value;
  __syncthreads();
  value = partial[0];
  for (unsigned w = 1; w < warps; ++w) value = combine(value, partial[w]);
  __syncthreads();  // nobody overwrites what somebody still reads
  return value;
}

// What a block's lanes keep on the chip. Neighbouring lanes have neighbouring slots.
__device__ inline void* block_slot(index_t slot) {
  extern __shared__ __align__(16) unsigned char kept[];
  return kept + (slot * blockDim.x + threadIdx.x) * slot_bytes;
}

}  // namespace detail

/// The 32 threads of a warp; threadIdx.x is the lane, threadIdx.y the warp.
struct warp_lanes {
  __device__ index_t lane() const { return threadIdx.x; }
  __device__ index_t count() const { return 32; }
  template <class T>
  __device__ T sum(T value) const {
    return detail::combine_warp(value, detail::add_values{});
  }
  template <class T>
  __device__ T max(T value) const {
    return detail::combine_warp(value, detail::greater_value{});
  }
};

/// All threads of a block, in whole warps.
struct block_lanes {
  index_t slots;

  __device__ index_t lane() const { return threadIdx.x; }
  __device__ index_t count() const { return blockDim.x; }
  template <class T>
  __device__ T sum(T value) const {
    return detail::combine_block(value, detail::add_values{});
  }
  template <class T>
  __device__ T max(T value) const {
    return detail::combine_block(value, detail::greater_value{});
  }
  __device__ index_t slot_count() const { return slots; }
  __device__ void* slot(index_t k) const { return detail::block_slot(k); }
};

/// All threads of a cluster of at most 8 blocks (compute capability 9.0); combined through the
/// blocks' shared memory.
struct cluster_lanes {
  index_t slots;

  __device__ index_t lane() const { return block() * blockDim.x + threadIdx.x; }
  __device__ index_t count() const { return blocks() * blockDim.x; }
  template <class T>
  __device__ T sum(T value) const {
    return combine(value, detail::add_values{});
  }
  template <class T>
  __device__ T max(T value) const {
    return combine(value, detail::greater_value{});
  }
  __device__ index_t slot_count() const { return slots; }
  __device__ void* slot(index_t k) const { return detail::block_slot(k); }

 private:
  // An executor launches these lanes where there are clusters only.
  __device__ static index_t block() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    return cooperative_groups::this_cluster().block_rank();
#else
    return 0;
#endif
  }
  __device__ static index_t blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    return cooperative_groups::this_cluster().num_blocks();
#else
    return 1;
#endif
  }
  template <class T, class Combine>
  __device__ static T combine(T value, Combine combine_two) {
    value = detail::combine_block(value, combine_two);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    __shared__ T partial[8];  // by block
    auto const cluster = cooperative_groups::this_cluster();
    unsigned const own = cluster.block_rank(), count = cluster.num_blocks();
    if (threadIdx.x < count) cluster.map_shared_rank(partial, threadIdx.x)[own] = value;
    cluster.sync();
    value = partial[0];
    for (unsigned b = 1; b < count; ++b) value = combine_two(value, partial[b]);
    cluster.sync();  // nobody overwrites, or leaves, what somebody still reads
#endif
    return value;
  }
};

static_assert(lane_group<warp_lanes>);
static_assert(keeping_lane_group<block_lanes>);
static_assert(keeping_lane_group<cluster_lanes>);

LAMINA_NAMESPACE_END
