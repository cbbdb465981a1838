// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Products of tiles by warps that multiply blocks of 16 together: which lane reads, holds and
// multiplies what. The three instructions that it takes are the warp's.
#pragma once

#include <cmath>

#include "lamina/core/tile_sums.hpp"

LAMINA_NAMESPACE_BEGIN

/// What a lane has of four matrices of 8 x 8 narrow numbers: of each, two neighbours of row
/// lane / 4, columns 2 (lane % 4) and the next, the first in the lower half.
struct four_matrices {
  std::uint32_t pairs[4];
};

/// Warps of 32 lanes that multiply together; all lanes of a warp call the same at once.
///
/// load_matrices(row)             lane i says where row i % 8 of matrix i / 8 is: 16 bytes
/// load_transposed_matrices(row)  the same with rows and columns exchanged
/// multiply<T>(sums, a, upper, lower)
///     sums [16, 8] += a [16, 16] b [16, 8]. A lane has rows lane / 4 and 8 more of the sums,
///     columns 2 (lane % 4) and the next. Matrices of a: upper left, lower left, upper right, lower
///     right; of b, transposed: upper, lower.
/// exchange(value, mask)          the value of lane `lane() ^ mask`
template <class W>
concept multiplying_warp = requires(float (&sums)[4], four_matrices m, void const* row, float x) {
  { W::warp() } -> std::convertible_to<int>;
  { W::lane() } -> std::convertible_to<int>;
  { W::load_matrices(row) } -> std::same_as<four_matrices>;
  { W::load_transposed_matrices(row) } -> std::same_as<four_matrices>;
  { W::exchange(x, 1) } -> std::same_as<float>;
  W::template multiply<bf16>(sums, m, m.pairs[0], m.pairs[1]);
};

/// plain_tile_sums by warps that hold the sums of 16 rows each, a lane two pieces of rows: for
/// tile_sums_lanes(Rows) lanes and more. Warps of unused rows do nothing. Rows of tiles should
/// start in different banks: strides of an odd number of 16 bytes.
///
/// Source of the layouts: PTX ISA 8.7, sections 9.7.14.5.8 (mma.m16n8k16) and 9.7.14.5.15
/// (ldmatrix).
template <multiplying_warp Warp, int Rows, int Cols>
class warp_tile_sums {
  static_assert(Rows % 16 == 0 && Cols % 16 == 0, "lamina: warps multiply blocks of 16");

 public:
  static constexpr int most_rows = 2;

  template <class Lanes>
  LAMINA_HOST_DEVICE warp_tile_sums(Lanes, int rows) : used_(first_row() < rows) {
    for (auto& block : sums_) {
      for (float& sum : block) sum = 0;
    }
  }

  LAMINA_HOST_DEVICE static constexpr int row_count() { return most_rows; }
  LAMINA_HOST_DEVICE static int row(int i) { return first_row() + Warp::lane() / 4 + 8 * i; }
  LAMINA_HOST_DEVICE static constexpr int col_count() { return Cols / 4; }
  LAMINA_HOST_DEVICE static int col(int j) { return j / 2 * 8 + Warp::lane() % 4 * 2 + j % 2; }
  LAMINA_HOST_DEVICE float& operator()(int i, int j) { return sums_[j / 2][2 * i + j % 2]; }
  LAMINA_HOST_DEVICE float operator()(int i, int j) const { return sums_[j / 2][2 * i + j % 2]; }

  // The four lanes of a row are neighbours.
  LAMINA_HOST_DEVICE static float sum_of_row(float value) {
    value += Warp::exchange(value, 1);
    return value + Warp::exchange(value, 2);
  }
  LAMINA_HOST_DEVICE static float max_of_row(float value) {
    value = std::fmax(value, Warp::exchange(value, 1));
    return std::fmax(value, Warp::exchange(value, 2));
  }

  template <int Depth, storage_scalar T>
  LAMINA_HOST_DEVICE void add_transposed_product(shared_tile<T> a, shared_tile<T> b) {
    static_assert(Depth % 16 == 0, "lamina: warps multiply blocks of 16");
    if (!used_) return;
    int const lane = Warp::lane();
    T const* const x = a.row(first_row() + lane % 16) + lane / 16 * 8;
    T const* const y = b.row(lane % 8 + lane / 16 * 8) + lane / 8 % 2 * 8;
    for (int k = 0; k < Depth; k += 16) {
      four_matrices const left = Warp::load_matrices(x + k);
      for (int n = 0; n < Cols; n += 16) {
        multiply<T>(left, Warp::load_matrices(y + n * b.stride + k), n);
      }
    }
  }

  template <int Depth, storage_scalar T>
  LAMINA_HOST_DEVICE void add_product(warp_tile_sums<Warp, Rows, Depth> const& a,
                                      shared_tile<T> b) {
    if (!used_) return;
    int const lane = Warp::lane();
    T const* const y = b.row(lane % 16) + lane / 16 * 8;
    for (int k = 0; k < Depth; k += 16) {
      four_matrices const left = a.template rounded<T>(k);
      for (int n = 0; n < Cols; n += 16) {
        multiply<T>(left, Warp::load_transposed_matrices(y + k * b.stride + n), n);
      }
    }
  }

  /// Columns [first, first + 16) of the warp's rows, rounded: the left factor of a product.
  template <storage_scalar T>
  LAMINA_HOST_DEVICE four_matrices rounded(int first) const {
    float const(&left)[4] = sums_[first / 8];
    float const(&right)[4] = sums_[first / 8 + 1];
    return {{rounded_pair<T>(left[0], left[1]), rounded_pair<T>(left[2], left[3]),
             rounded_pair<T>(right[0], right[1]), rounded_pair<T>(right[2], right[3])}};
  }

 private:
  LAMINA_HOST_DEVICE static int first_row() { return Warp::warp() * 16; }
  template <class T>
  LAMINA_HOST_DEVICE static std::uint32_t rounded_pair(float first, float second) {
    return std::uint32_t{T(first).bits} | std::uint32_t{T(second).bits} << 16;
  }
  // Columns [n, n + 16) of the sums += left right, right being two neighbours of b.
  template <class T>
  LAMINA_HOST_DEVICE void multiply(four_matrices const& left, four_matrices const& right, int n) {
    Warp::template multiply<T>(sums_[n / 8], left, right.pairs[0], right.pairs[1]);
    Warp::template multiply<T>(sums_[n / 8 + 1], left, right.pairs[2], right.pairs[3]);
  }

  bool used_;
  float sums_[Cols / 8][4];  // blocks [16, 8]
};

LAMINA_NAMESPACE_END
