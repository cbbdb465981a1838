// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Products of tiles that are exact, whoever takes the sums: what lanes with units of their own are
// held to, bit for bit.
#pragma once

#include <vector>

#include "lamina/core/random.hpp"
#include "lamina/core/row_chunks.hpp"
#include "lamina/core/tile_sums.hpp"

namespace lamina::testing {

/// scores = a b^T, mixed = T(scores) c, and what lanes say of the rows of scores.
///
/// a       [rows up to a multiple of 16, Depth]
/// b, c    [Cols, Depth]
/// scores  [rows, Cols], mixed [rows, Depth], sums and maxima [rows]
/// visits  [rows, Cols]   one is added for each lane that holds the element
template <storage_scalar T, int Rows, int Cols, int Depth>
struct tile_products_body {
  int rows;
  T const *a, *b, *c;
  float *scores, *mixed, *sums, *maxima;
  int* visits;

  static constexpr auto schedule = row_schedule::block;
  static constexpr unsigned lane_count = 2 * Rows;
  static constexpr int stride = Depth + 8;

  index_t shared_bytes() const {
    return (Rows + 2 * Cols) * stride * static_cast<index_t>(sizeof(T));
  }

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t) const {
    T* const memory = static_cast<T*>(lanes.shared());
    shared_tile<T> const left{memory, stride}, right{left.row(Rows), stride},
        third{right.row(Cols), stride};
    load(lanes, a, (rows + 15) / 16 * 16, left);
    load(lanes, b, Cols, right);
    load(lanes, c, Cols, third);
    lanes.sync();
    tile_sums<Lanes, Rows, Cols> score(lanes, rows);
    score.template add_transposed_product<Depth>(left, right);
    for (int i = 0; i < score.row_count(); ++i) {
      int const r = score.row(i);
      float sum = 0, most = score(i, 0);
      for (int j = 0; j < score.col_count(); ++j) {
        sum += score(i, j);
        most = score(i, j) > most ? score(i, j) : most;
      }
      sum = score.sum_of_row(sum);
      most = score.max_of_row(most);
      if (r >= rows) continue;
      for (int j = 0; j < score.col_count(); ++j) {
        scores[r * Cols + score.col(j)] = score(i, j);
        ++visits[r * Cols + score.col(j)];
      }
      if (score.col(0) != 0) continue;
      sums[r] = sum;
      maxima[r] = most;
    }
    tile_sums<Lanes, Rows, Depth> out(lanes, rows);
    out.add_product(score, third);
    for (int i = 0; i < out.row_count(); ++i) {
      if (out.row(i) >= rows) continue;
      for (int j = 0; j < out.col_count(); ++j) {
        mixed[out.row(i) * Depth + out.col(j)] = out(i, j);
      }
    }
  }

 private:
  template <class Lanes>
  LAMINA_HOST_DEVICE static void load(Lanes lanes, T const* from, int count, shared_tile<T> to) {
    for (int e = static_cast<int>(lanes.lane()); e < count * Depth;
         e += static_cast<int>(lanes.count())) {
      to.row(e / Depth)[e % Depth] = from[e];
    }
  }
};

/// Factors of small integers: all products and sums are exact, but for the rounding of scores to T.
/// Rows of `a` beyond the used ones are no numbers.
template <storage_scalar T, int Rows, int Cols, int Depth>
struct exact_tile_products {
  using body = tile_products_body<T, Rows, Cols, Depth>;

  int rows;
  std::vector<T> a, b, c;
  std::vector<float> scores, mixed, sums, maxima;

  explicit exact_tile_products(int row_count)
      : rows(row_count),
        a(integers(Rows * Depth)),
        b(integers(Cols * Depth)),
        c(integers(Cols * Depth)),
        scores(size(Cols)),
        mixed(size(Depth)),
        sums(size(1)),
        maxima(size(1), -1e9f) {
    for (std::size_t e = size(Depth); e < a.size(); ++e) a[e] = T(__builtin_nanf(""));
    for (int r = 0; r < rows; ++r) {
      auto const row = static_cast<std::size_t>(r);
      for (int j = 0; j < Cols; ++j) {
        float score = 0;
        for (int k = 0; k < Depth; ++k) {
          score += static_cast<float>(a[at(r, k, Depth)]) * static_cast<float>(b[at(j, k, Depth)]);
        }
        scores[at(r, j, Cols)] = score;
        sums[row] += score;
        maxima[row] = score > maxima[row] ? score : maxima[row];
        for (int k = 0; k < Depth; ++k) {
          mixed[at(r, k, Depth)] +=
              static_cast<float>(T(score)) * static_cast<float>(c[at(j, k, Depth)]);
        }
      }
    }
  }

 private:
  static std::size_t at(int row, int col, int cols) {
    return static_cast<std::size_t>(row * cols + col);
  }
  std::size_t size(int cols) const { return static_cast<std::size_t>(rows * cols); }
  static std::vector<T> integers(int count) {
    counter_generator draws(static_cast<std::uint64_t>(count), Cols);
    std::vector<T> values;
    for (int i = 0; i < count; ++i) {
      values.push_back(T(static_cast<float>(draws.below(9)) - 4.0f));
    }
    return values;
  }
};

}  // namespace lamina::testing
