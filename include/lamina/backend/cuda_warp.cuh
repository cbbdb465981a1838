// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The instructions by which the warps of a device multiply tiles on its tensor cores (compute
// capability 8.0 and newer).
#pragma once

#include "lamina/core/warp_tile_sums.hpp"

LAMINA_NAMESPACE_BEGIN

/// A multiplying_warp, of blocks with one dimension.
struct tensor_core_warp {
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / 32; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static float exchange(float value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }

  __device__ static four_matrices load_matrices(void const* row) {
    four_matrices m;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m.pairs[0]), "=r"(m.pairs[1]), "=r"(m.pairs[2]), "=r"(m.pairs[3])
                 : "r"(shared_address(row))
                 : "memory");
    return m;
  }
  __device__ static four_matrices load_transposed_matrices(void const* row) {
    four_matrices m;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m.pairs[0]), "=r"(m.pairs[1]), "=r"(m.pairs[2]), "=r"(m.pairs[3])
                 : "r"(shared_address(row))
                 : "memory");
    return m;
  }

  template <storage_scalar T>
  __device__ static void multiply(float (&sums)[4], four_matrices const& a, std::uint32_t upper,
                                  std::uint32_t lower) {
    static_assert(std::same_as<T, bf16> || std::same_as<T, f16>,
                  "lamina: tensor cores multiply bf16 and f16");
    std::uint32_t const(&x)[4] = a.pairs;
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

 private:
  __device__ static unsigned shared_address(void const* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
  }
};
static_assert(multiplying_warp<tensor_core_warp>);

LAMINA_NAMESPACE_END
