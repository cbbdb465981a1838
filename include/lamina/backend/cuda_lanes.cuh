// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Groups of threads of a device that work a row together: a warp, a block, a cluster of blocks.
#pragma once

#include <cooperative_groups.h>

#include <cstdint>

#include "lamina/backend/cuda_warp.cuh"
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

// The value of the lane whose number differs in the bits of `step`.
template <class T>
__device__ T exchange(T const& value, int step) {
  static_assert(sizeof(T) % 4 == 0, "lamina: lanes exchange whole words of 4 bytes");
  T other;
  std::uint32_t words[sizeof(T) / 4];
  __builtin_memcpy(words, &value, sizeof(T));
  for (std::uint32_t& word : words) word = __shfl_xor_sync(0xffffffffu, word, step);
  __builtin_memcpy(&other, words, sizeof(T));
  return other;
}

// Merges that first move values to a common level, the highest of all: then that takes a step of
// its own once, and the rest are additions.
template <class Combine, class T>
concept levelling = requires(T const& value) {
  Combine::added(Combine::moved(value, Combine::level(value)), value);
};

// A butterfly over groups of 2 * step lanes: the same value in all of them. Operands stay in the
// order of the lanes, so that the bits are the same as well.
template <class T, class Combine>
__device__ T combine_lanes(T value, int step, Combine const& combine) {
  if constexpr (levelling<Combine, T>) {
    auto top = Combine::level(value);
    for (int s = step; s > 0; s /= 2) top = greater_value{}(top, exchange(top, s));
    value = Combine::moved(value, top);
    for (; step > 0; step /= 2) value = Combine::added(value, exchange(value, step));
  } else {
    for (; step > 0; step /= 2) {
      T const other = exchange(value, step);
      bool const upper = (threadIdx.x & static_cast<unsigned>(step)) != 0;
      value = upper ? combine(other, value) : combine(value, other);
    }
  }
  return value;
}

// `count` values in shared memory, a power of two, combined by every warp in the same way.
template <class T, class Combine>
__device__ T combine_shared(T const* values, unsigned count, Combine const& combine) {
  unsigned const lane = threadIdx.x % 32, width = count < 32 ? count : 32;
  T value = values[lane % width];
#pragma unroll 1
  for (unsigned k = lane + 32; k < count; k += 32) value = combine(value, values[k]);
  return combine_lanes(value, static_cast<int>(width) / 2, combine);
}

// Room in the block's shared memory, without the constructors that shared variables must not have.
template <class T, unsigned Count>
__device__ T* shared_values() {
  __shared__ __align__(16) unsigned char bytes[Count * sizeof(T)];
  return reinterpret_cast<T*>(bytes);
}

// Of a block of whole warps, a power of two of them.
template <class T, class Combine>
__device__ T combine_block(T value, Combine const& combine) {
  T* const partial = shared_values<T, 32>();
  value = combine_lanes(value, 16, combine);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = combine_shared(partial, blockDim.x / 32, combine);
  __syncthreads();  // nobody overwrites what somebody still reads
  return value;
}

// What a block's lanes keep on the chip.
__device__ inline unsigned char* block_memory() {
  extern __shared__ __align__(16) unsigned char kept[];
  return kept;
}
// Neighbouring lanes have neighbouring slots.
__device__ inline void* block_slot(index_t slot) {
  unsigned const chunk = static_cast<unsigned>(slot) * blockDim.x + threadIdx.x;
  return block_memory() + chunk * static_cast<unsigned>(slot_bytes);
}
// Copies to the chip past the registers, each a group of its own so that they can be waited for
// one by one.
__device__ inline void fetch_slot(index_t slot, void const* from) {
  unsigned const to = static_cast<unsigned>(__cvta_generic_to_shared(block_slot(slot)));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n\tcp.async.commit_group;" ::"r"(to),
               "l"(from)
               : "memory");
}
// The instruction takes a constant; waiting for more than was asked is right too.
__device__ inline void await_slots(index_t later) {
  switch (later < 8 ? later : 8) {
    case 8: asm volatile("cp.async.wait_group 8;" ::: "memory"); return;
    case 7: asm volatile("cp.async.wait_group 7;" ::: "memory"); return;
    case 6: asm volatile("cp.async.wait_group 6;" ::: "memory"); return;
    case 5: asm volatile("cp.async.wait_group 5;" ::: "memory"); return;
    case 4: asm volatile("cp.async.wait_group 4;" ::: "memory"); return;
    case 3: asm volatile("cp.async.wait_group 3;" ::: "memory"); return;
    case 2: asm volatile("cp.async.wait_group 2;" ::: "memory"); return;
    case 1: asm volatile("cp.async.wait_group 1;" ::: "memory"); return;
    default: asm volatile("cp.async.wait_group 0;" ::: "memory"); return;
  }
}

}  // namespace detail

/// The 32 threads of a warp; threadIdx.x is the lane, threadIdx.y the warp.
struct warp_lanes {
  __device__ index_t lane() const { return threadIdx.x; }
  __device__ index_t count() const { return 32; }
  template <class T>
  __device__ T sum(T value) const {
    return detail::combine_lanes(value, 16, detail::add_values{});
  }
  template <class T>
  __device__ T max(T value) const {
    return detail::combine_lanes(value, 16, detail::greater_value{});
  }
};

/// All threads of a block of 1, 2, 4, 8 or 16 whole warps.
struct block_lanes {
  template <int Rows, int Cols>
  using tile_sums = warp_tile_sums<tensor_core_warp, Rows, Cols>;

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
  template <class T, class Combine>
  __device__ T fold(T value, Combine const& combine) const {
    return detail::combine_block(value, combine);
  }
  __device__ index_t slot_count() const { return slots; }
  __device__ void* slot(index_t k) const { return detail::block_slot(k); }
  __device__ void fetch(index_t k, void const* from) const { detail::fetch_slot(k, from); }
  __device__ void await(index_t later) const { detail::await_slots(later); }
  __device__ void* shared() const { return detail::block_memory(); }
  __device__ void sync() const { __syncthreads(); }
};

/// All threads of a cluster of 1, 2, 4 or 8 blocks of 256 threads at most (compute capability 9.0),
/// which meet in their shared memories. A kernel calls begin() before anything else.
struct cluster_lanes {
  index_t slots;

  /// Says that the block runs: until all of the cluster do, none may touch another's memory.
  __device__ void begin() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if (threadIdx.x % 32 == 0) *turn() = 0;
    __syncwarp();
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
#endif
  }
  __device__ index_t lane() const { return block() * blockDim.x + threadIdx.x; }
  __device__ index_t count() const { return blocks() * blockDim.x; }
  template <class T>
  __device__ T sum(T value) const {
    return fold(value, detail::add_values{});
  }
  template <class T>
  __device__ T max(T value) const {
    return fold(value, detail::greater_value{});
  }
  // Every warp tells every block of the cluster, and they meet once: the next values go to other
  // places, and those after them wait for a meeting that comes after these have been read.
  template <class T, class Combine>
  __device__ T fold(T value, Combine const& combine) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    constexpr unsigned most = most_blocks * most_warps;
    unsigned const lane = threadIdx.x % 32, warps = blockDim.x / 32;
    unsigned const times = *turn();
    __syncwarp();
    if (lane == 0) *turn() = times == 1 ? 2 : 1;
    T* const partial = detail::shared_values<T, 2 * most>() + (times % 2) * most;
    value = detail::combine_lanes(value, 16, combine);
    auto const cluster = cooperative_groups::this_cluster();
    unsigned const blocks = cluster.num_blocks();
    unsigned const own = cluster.block_rank() * warps + threadIdx.x / 32;
    if (times == 0) asm volatile("barrier.cluster.wait;" ::: "memory");  // for begin()
    if (lane < blocks) cluster.map_shared_rank(partial, lane)[own] = value;
    cluster.sync();
    return detail::combine_shared(partial, warps * blocks, combine);
#else
    return detail::combine_block(value, combine);
#endif
  }
  __device__ index_t slot_count() const { return slots; }
  __device__ void* slot(index_t k) const { return detail::block_slot(k); }
  __device__ void fetch(index_t k, void const* from) const { detail::fetch_slot(k, from); }
  __device__ void await(index_t later) const { detail::await_slots(later); }

 private:
  static constexpr unsigned most_blocks = 8, most_warps = 8;

  // How often the warp has folded: 0, then 1 and 2 by turns.
  __device__ static unsigned* turn() {
    __shared__ unsigned turns[most_warps];
    return turns + threadIdx.x / 32;
  }
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
};

static_assert(lane_group<warp_lanes>);
static_assert(keeping_lane_group<block_lanes>);
static_assert(multiplying_lane_group<block_lanes>);
static_assert(keeping_lane_group<cluster_lanes>);

LAMINA_NAMESPACE_END
