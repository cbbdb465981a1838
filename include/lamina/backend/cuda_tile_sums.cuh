// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Products of tiles in shared memory by the tensor cores of a device (compute capability 8.0 and
// newer); the sums stay in the registers of a block's warps.
#pragma once

#include "lamina/core/tile_sums.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Four matrices of 8 x 8 narrow numbers, or what a warp's lane has of them: two neighbours of each.
// Of a matrix, lane i has row i / 4, columns 2 (i % 4) and the next; or row and column exchanged.
struct four_matrices {
  unsigned pairs[4];
};

// Lane i says where row i % 8 of matrix i / 8 is: 16 bytes.
__device__ inline four_matrices load_matrices(void const* row) {
  four_matrices m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m.pairs[0]), "=r"(m.pairs[1]), "=r"(m.pairs[2]), "=r"(m.pairs[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
  return m;
}
__device__ inline four_matrices load_transposed_matrices(void const* row) {
  four_matrices m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m.pairs[0]), "=r"(m.pairs[1]), "=r"(m.pairs[2]), "=r"(m.pairs[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
  return m;
}

template <class T>
concept tensor_core_number = std::same_as<T, bf16> || std::same_as<T, f16>;

// The first in the lower half.
template <tensor_core_number T>
__device__ unsigned rounded_pair(float first, float second) {
  unsigned pair = 0;
  if constexpr (std::same_as<T, bf16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  }
  return pair;
}

// sums [16, 8] += a [16, 16] b [16, 8]. Lane i has rows i / 4 and i / 4 + 8 of the sums, columns
// 2 (i % 4) and the next. Matrices of a: upper left, lower left, upper right, lower right; of b,
// transposed: upper, lower.
template <tensor_core_number T>
__device__ void multiply_matrices(float (&sums)[4], four_matrices const& a, unsigned upper,
                                  unsigned lower) {
  unsigned const(&x)[4] = a.pairs;
  if constexpr (std::same_as<T, bf16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(upper), "r"(lower));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(upper), "r"(lower));
  }
}

}  // namespace detail

/// plain_tile_sums by the warps of a block: warp w holds rows 16 w .. 16 w + 15, a lane two pieces
/// of rows. Needs 2 Rows threads at least; warps beyond the used rows do nothing. Tiles' rows have
/// to be conflict-free: strides of an odd number of 16 bytes.
///
/// Source of the layouts: PTX ISA 8.7, sections 9.7.14.5.8 (mma.m16n8k16) and 9.7.14.5.15
/// (ldmatrix).
template <int Rows, int Cols>
class warp_tile_sums {
  static_assert(Rows % 16 == 0 && Cols % 16 == 0, "lamina: tensor cores multiply blocks of 16");

 public:
  static constexpr int most_rows = 2;

  template <class Lanes>
  __device__ warp_tile_sums(Lanes, int rows) : used_(first_row() < rows) {
    for (auto& block : sums_) {
      for (float& sum : block) sum = 0;
    }
  }

  __device__ static constexpr int row_count() { return 2; }
  __device__ static int row(int i) { return first_row() + lane() / 4 + 8 * i; }
  __device__ static constexpr int col_count() { return Cols / 4; }
  __device__ static int col(int j) { return j / 2 * 8 + lane() % 4 * 2 + j % 2; }
  __device__ float& operator()(int i, int j) { return sums_[j / 2][2 * i + j % 2]; }
  __device__ float operator()(int i, int j) const { return sums_[j / 2][2 * i + j % 2]; }

  // The four lanes of a row are neighbours.
  __device__ static float sum_of_row(float value) {
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
  }
  __device__ static float max_of_row(float value) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
  }

  template <int Depth, detail::tensor_core_number T>
  __device__ void add_transposed_product(shared_tile<T> a, shared_tile<T> b) {
    static_assert(Depth % 16 == 0, "lamina: tensor cores multiply blocks of 16");
    if (!used_) return;
    T const* const x = a.row(first_row() + lane() % 16) + lane() / 16 * 8;
    T const* const y = b.row(lane() % 8 + lane() / 16 * 8) + lane() / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < Depth; k += 16) {
      detail::four_matrices const left = detail::load_matrices(x + k);
#pragma unroll
      for (int n = 0; n < Cols; n += 16) {
        detail::four_matrices const right = detail::load_matrices(y + n * b.stride + k);
        detail::multiply_matrices<T>(sums_[n / 8], left, right.pairs[0], right.pairs[1]);
        detail::multiply_matrices<T>(sums_[n / 8 + 1], left, right.pairs[2], right.pairs[3]);
      }
    }
  }

  template <int Depth, detail::tensor_core_number T>
  __device__ void add_product(warp_tile_sums<Rows, Depth> const& a, shared_tile<T> b) {
    if (!used_) return;
    T const* const y = b.row(lane() % 16) + lane() / 16 * 8;
#pragma unroll
    for (int k = 0; k < Depth; k += 16) {
      detail::four_matrices const left = a.template rounded<T>(k);
#pragma unroll
      for (int n = 0; n < Cols; n += 16) {
        detail::four_matrices const right = detail::load_transposed_matrices(y + k * b.stride + n);
        detail::multiply_matrices<T>(sums_[n / 8], left, right.pairs[0], right.pairs[1]);
        detail::multiply_matrices<T>(sums_[n / 8 + 1], left, right.pairs[2], right.pairs[3]);
      }
    }
  }

  /// Columns [first, first + 16) of the warp's rows, rounded: the left factor of a product.
  template <detail::tensor_core_number T>
  __device__ detail::four_matrices rounded(int first) const {
    float const(&left)[4] = sums_[first / 8];
    float const(&right)[4] = sums_[first / 8 + 1];
    return {{detail::rounded_pair<T>(left[0], left[1]), detail::rounded_pair<T>(left[2], left[3]),
             detail::rounded_pair<T>(right[0], right[1]),
             detail::rounded_pair<T>(right[2], right[3])}};
  }

 private:
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int first_row() { return static_cast<int>(threadIdx.x) / 32 * 16; }

  bool used_;
  float sums_[Cols / 8][4];  // blocks [16, 8]
};

LAMINA_NAMESPACE_END
