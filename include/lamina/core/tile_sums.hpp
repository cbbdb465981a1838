// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Products of small matrices of narrow numbers that lie in shared memory, summed in float: each
// lane of a group holds a part of the sums. Lanes with units for such products bring their own
// form; this one is plain loops, and says what the others compute.
#pragma once

#include "lamina/core/lanes.hpp"
#include "lamina/core/scalar.hpp"

LAMINA_NAMESPACE_BEGIN

/// A row-major matrix in memory that lanes share. Rows start at multiples of slot_bytes.
template <storage_scalar T>
struct shared_tile {
  T* data;
  int stride;  ///< elements from one row to the next

  LAMINA_HOST_DEVICE T* row(int r) const { return data + r * stride; }
};

/// Sums [rows, Cols], rows <= Rows, dealt out to lanes row by row.
///
/// A lane holds row_count() pieces of rows, at most_rows the most: piece i belongs to row(i) and
/// has col_count() elements, element j of which is column col(j). They are the same in all sums of
/// as many rows, whatever the columns, so that a lane may keep what it knows about a row.
template <int Rows, int Cols>
class plain_tile_sums {
 public:
  static constexpr int most_rows = Rows;

  /// Zero. `rows` of the sums are used: pieces of others may exist, and say nothing.
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE plain_tile_sums(Lanes lanes, int rows)
      : first_(static_cast<int>(lanes.lane())),
        step_(static_cast<int>(lanes.count())),
        count_(first_ < rows ? (rows - first_ + step_ - 1) / step_ : 0) {
    for (int i = 0; i < count_; ++i) {
      for (int j = 0; j < Cols; ++j) sums_[i][j] = 0;
    }
  }

  LAMINA_HOST_DEVICE int row_count() const { return count_; }
  LAMINA_HOST_DEVICE int row(int i) const { return first_ + i * step_; }
  LAMINA_HOST_DEVICE static constexpr int col_count() { return Cols; }
  LAMINA_HOST_DEVICE static constexpr int col(int j) { return j; }
  LAMINA_HOST_DEVICE float& operator()(int i, int j) { return sums_[i][j]; }
  LAMINA_HOST_DEVICE float operator()(int i, int j) const { return sums_[i][j]; }

  /// The sum, or the maximum, of what all lanes that hold pieces of a row have of it. All lanes
  /// have to come by.
  LAMINA_HOST_DEVICE static float sum_of_row(float value) { return value; }
  LAMINA_HOST_DEVICE static float max_of_row(float value) { return value; }

  /// this += a b^T.
  ///
  /// a  [rows, Depth]  rounded up to a multiple of 16 rows, which have to be there
  /// b  [Cols, Depth]
  template <int Depth, storage_scalar T>
  LAMINA_HOST_DEVICE void add_transposed_product(shared_tile<T> a, shared_tile<T> b) {
    for (int i = 0; i < count_; ++i) {
      T const* const x = a.row(row(i));
      for (int j = 0; j < Cols; ++j) {
        T const* const y = b.row(j);
        float sum = 0;
        for (int k = 0; k < Depth; ++k) sum += static_cast<float>(x[k]) * static_cast<float>(y[k]);
        sums_[i][j] += sum;
      }
    }
  }

  /// this += a b, with a rounded to what b is stored in.
  ///
  /// a  [rows, Depth]  held by the same lanes
  /// b  [Depth, Cols]
  template <int Depth, storage_scalar T>
  LAMINA_HOST_DEVICE void add_product(plain_tile_sums<Rows, Depth> const& a, shared_tile<T> b) {
    for (int i = 0; i < count_; ++i) {
      for (int k = 0; k < Depth; ++k) {
        float const x = static_cast<float>(static_cast<T>(a(i, k)));
        T const* const y = b.row(k);
        for (int j = 0; j < Cols; ++j) sums_[i][j] += x * static_cast<float>(y[j]);
      }
    }
  }

 private:
  int first_, step_, count_;
  float sums_[Rows][Cols];
};

/// Lanes that share memory and multiply tiles by units of their own: tile_sums<Rows, Cols> does
/// what plain_tile_sums does, but for the order in which a sum is taken.
template <class L>
concept multiplying_lane_group = sharing_lane_group<L> && requires {
  typename L::template tile_sums<16, 16>;
};

namespace detail {
template <class Lanes, int Rows, int Cols>
struct tile_sums_for {
  using type = plain_tile_sums<Rows, Cols>;
};
template <multiplying_lane_group Lanes, int Rows, int Cols>
struct tile_sums_for<Lanes, Rows, Cols> {
  using type = typename Lanes::template tile_sums<Rows, Cols>;
};
}  // namespace detail

/// The sums [Rows, Cols] of products of tiles by these lanes. Rows and Cols are multiples of 16.
template <sharing_lane_group Lanes, int Rows, int Cols>
using tile_sums = typename detail::tile_sums_for<Lanes, Rows, Cols>::type;

LAMINA_NAMESPACE_END
