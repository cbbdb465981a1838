// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// GEMM in plain C++ for hosts without a library for it: blocks of a that stay in the cache, tiles
// of c that stay in vector registers.
#pragma once

#include <cstring>

#include "lamina/backend/gemm.hpp"
#include "lamina/core/pack.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Sizes in elements. A tile of c fills most of 16 vector registers; a strip of b, [depth, cols],
// half of the first cache; a block of a, [block_rows, depth], part of the second.
template <real T>
struct plain_tile {
  static constexpr index_t rows = 6;
  static constexpr index_t cols = 2 * native<T>::width;
  static constexpr index_t depth = 1024 / static_cast<index_t>(sizeof(T));
  static constexpr index_t block_rows = 12 * rows;
};

// tile[rows, cols] = a^T b, with a packed as [depth, rows] and b as [depth, cols].
template <real T>
void multiply_tile(index_t depth, T const* a, T const* b, T* tile) {
  using vector = typename native<T>::value;
  vector sums[plain_tile<T>::rows][2] = {};
  for (index_t k = 0; k < depth; ++k) {
    vector low, high;
    std::memcpy(&low, b, sizeof low);
    std::memcpy(&high, b + native<T>::width, sizeof high);
    for (index_t i = 0; i < plain_tile<T>::rows; ++i) {
      sums[i][0] += a[i] * low;
      sums[i][1] += a[i] * high;
    }
    a += plain_tile<T>::rows;
    b += plain_tile<T>::cols;
  }
  std::memcpy(tile, sums, sizeof sums);
}

// packed[depth, Width] = from^T with `count` rows of `depth` elements, or from with `depth` rows
// of `count`; zeros beyond `count`.
template <index_t Width, real T>
void pack_strip(T const* from, index_t stride, bool depth_is_contiguous, index_t depth,
                index_t count, T* packed) {
  auto const copy = [&](index_t width) LAMINA_INLINE_LAMBDA {
    if (depth_is_contiguous) {
      for (index_t k = 0; k < depth; ++k) {
        for (index_t i = 0; i < width; ++i) packed[k * Width + i] = from[i * stride + k];
      }
    } else {
      for (index_t k = 0; k < depth; ++k) {
        for (index_t i = 0; i < width; ++i) packed[k * Width + i] = from[k * stride + i];
      }
    }
  };
  if (count == Width) {  // a width the compiler knows
    copy(Width);
  } else {
    std::memset(packed, 0, static_cast<std::size_t>(depth * Width) * sizeof(T));
    copy(count);
  }
}

}  // namespace detail

/// GEMM that needs nothing but a compiler, on the calling thread, with about 110 KiB of stack.
///
/// An element of c is summed in the order of the depth, in sums of 1 KiB of operands each, whatever
/// the sizes and strides: results do not depend on how a product is cut into panels. Compiled with
/// -O3 for AVX2 it does most of what a tuned library does on products of many rows, but about a
/// fifth on those of one row, for which b is packed all the same; cblas_gemm and onednn_gemm are
/// the fast choices.
/// Source of the scheme: Goto and van de Geijn 2008, Anatomy of High-Performance Matrix
/// Multiplication.
struct plain_gemm {
  template <real T>
  void operator()(gemm_arguments<T> const& g) const {
    using tile = detail::plain_tile<T>;
    if (detail::gemm_without_product(g)) return;
    bool const flip_a = g.transpose_a == transpose::yes;
    bool const flip_b = g.transpose_b == transpose::yes;
    T a_block[tile::block_rows * tile::depth];
    T b_strip[tile::depth * tile::cols];
    T product[tile::rows * tile::cols];
    auto const at_most = [](index_t limit, index_t rest) { return rest < limit ? rest : limit; };

    for (index_t k = 0; k < g.depth; k += tile::depth) {
      index_t const depth = at_most(tile::depth, g.depth - k);
      T const beta = k == 0 ? g.beta : T(1);
      for (index_t block = 0; block < g.rows; block += tile::block_rows) {
        index_t const block_end = at_most(g.rows, block + tile::block_rows);
        for (index_t row = block; row < block_end; row += tile::rows) {
          detail::pack_strip<tile::rows>(
              g.a + (flip_a ? k * g.a_stride + row : row * g.a_stride + k), g.a_stride, !flip_a,
              depth, at_most(tile::rows, block_end - row), a_block + (row - block) * tile::depth);
        }
        for (index_t col = 0; col < g.cols; col += tile::cols) {
          index_t const cols = at_most(tile::cols, g.cols - col);
          detail::pack_strip<tile::cols>(
              g.b + (flip_b ? col * g.b_stride + k : k * g.b_stride + col), g.b_stride, flip_b,
              depth, cols, b_strip);
          for (index_t row = block; row < block_end; row += tile::rows) {
            detail::multiply_tile(depth, a_block + (row - block) * tile::depth, b_strip, product);
            index_t const rows = at_most(tile::rows, block_end - row);
            for (index_t i = 0; i < rows; ++i) {
              T* const c = g.c + (row + i) * g.c_stride + col;
              T const* const sums = product + i * tile::cols;
              for (index_t j = 0; j < cols; ++j) {
                c[j] = beta == T(0) ? g.alpha * sums[j] : beta * c[j] + g.alpha * sums[j];
              }
            }
          }
        }
      }
    }
  }
};

static_assert(pointer_gemm<plain_gemm, float> && pointer_gemm<plain_gemm, double>);

LAMINA_NAMESPACE_END
