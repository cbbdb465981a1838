// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Causal grouped-query attention over packed sequences, forward and backward. Probabilities are
// recomputed from a saved log-sum, so memory grows with tokens and not with their square.
#pragma once

#include <cmath>

#include "examples/decoder/config.hpp"
#include "examples/decoder/rows.hpp"
#include "lamina/core/math.hpp"

namespace decoder {

/// Positions scored together: keys are kept transposed, so that scores vectorise over positions.
inline constexpr index_t score_block = 8;

/// `count` rounded up to whole score blocks.
constexpr index_t padded(index_t count) {
  return (count + score_block - 1) / score_block * score_block;
}

/// target[c, j] = source[j, c], and 0 in the padding after the last position.
///
/// source  [positions, head_width]
/// target  [head_width, padded(positions)]
template <real T>
void transpose_head(matrix_view<T const> source, matrix_view<T> target) {
  for (index_t c = 0; c < target.rows; ++c) {
    T* const out = target.row(c).data;
    for (index_t j = 0; j < source.rows; ++j) out[j] = source(j, c);
    for (index_t j = source.rows; j < target.cols; ++j) out[j] = T(0);
  }
}

/// scores[j] = sum_c head[c] transposed[c, j] for j < padded(count).
template <real T>
void score(T const* head, matrix_view<T const> transposed, index_t count, T* scores) {
  for (index_t first = 0; first < count; first += score_block) {
    T total[score_block] = {};
    T const* column = transposed.data + first;
    for (index_t c = 0; c < transposed.rows; ++c, column += transposed.stride) {
      for (index_t j = 0; j < score_block; ++j) total[j] += head[c] * column[j];
    }
    for (index_t j = 0; j < score_block; ++j) scores[first + j] = total[j];
  }
}

/// scores[j] = exp(scale scores[j] - log_sum) for j < count, 0 in the padding.
template <real T>
void exponentiate(T* scores, index_t count, T scale, T log_sum) {
  for (index_t j = 0; j < padded(count); ++j) {
    scores[j] = lamina::fast_exp(scale * scores[j] - log_sum);
  }
  for (index_t j = count; j < padded(count); ++j) scores[j] = T(0);
}

/// Softmax of scale scores[0, count) in place, 0 in the padding. Returns log sum exp.
template <real T>
T softmax(T* scores, index_t count, T scale) {
  lamina::single_lane const lane;
  T const peak = scale * lamina::lane_max<T>(lane, 1, count, scores[0],
                                             [scores](index_t j) { return scores[j]; });
  exponentiate(scores, count, scale, peak);
  T const total = lamina::lane_sum<T>(lane, 0, count, [scores](index_t j) { return scores[j]; });
  T const inverse = T(1) / total;
  for (index_t j = 0; j < padded(count); ++j) scores[j] *= inverse;
  return peak + std::log(total);
}

/// out[c] += factor row[c].
template <real T>
void add_scaled(T factor, T const* row, index_t width, T* out) {
  for (index_t c = 0; c < width; ++c) out[c] += factor * row[c];
}

/// What one query head sees: out = sum_j p[j] values[j, :], p = softmax(query . keys /
/// sqrt(width)). Returns log sum exp of the scaled scores.
///
/// keys     [head_width, positions]  transposed
/// values   [positions, head_width]
/// count    positions seen
/// scratch  [padded(count)]
template <real T>
T attend(T const* query, matrix_view<T const> keys, matrix_view<T const> values, index_t count,
         T* scratch, T* out) {
  index_t const width = keys.rows;
  score(query, keys, count, scratch);
  T const log_sum = softmax(scratch, count, T(1) / std::sqrt(static_cast<T>(width)));
  for (index_t c = 0; c < width; ++c) out[c] = T(0);
  for (index_t j = 0; j < count; ++j) add_scaled(scratch[j], values.row(j).data, width, out);
  return log_sum;
}

/// Rows of an attention body: each works its share of the (sequence, kv head) pairs with its own
/// scratch, so that scratch is as large as a few sequences and not as large as the batch.
inline constexpr index_t attention_worker_count = 16;

/// The (sequence, kv head) pairs of a packed batch and where their columns are.
struct attention_layout {
  config const* shape;
  vector_view<index_t const> offsets;

  index_t pair_count() const { return (offsets.size - 1) * shape->kv_head_count; }
  index_t first_pair(index_t worker) const {
    return pair_count() * worker / attention_worker_count;
  }

  /// Rows of a sequence, columns [first, first + width) of a matrix over all tokens.
  template <class T>
  matrix_view<T> slice(matrix_view<T> whole, index_t pair, index_t first, index_t width) const {
    index_t const sequence = pair / shape->kv_head_count;
    index_t const begin = offsets[sequence];
    return {whole.data + begin * whole.stride + first, offsets[sequence + 1] - begin, width,
            whole.stride};
  }
  template <class T>
  matrix_view<T> key(matrix_view<T> qkv, index_t pair) const {
    index_t const column = shape->query_width() + pair % shape->kv_head_count * shape->head_width;
    return slice(qkv, pair, column, shape->head_width);
  }
  template <class T>
  matrix_view<T> value(matrix_view<T> qkv, index_t pair) const {
    index_t const column =
        shape->query_width() + shape->key_width() + pair % shape->kv_head_count * shape->head_width;
    return slice(qkv, pair, column, shape->head_width);
  }
  /// Query head `member` of the group that shares the pair's kv head; of qkv, or of a matrix
  /// [tokens, query_width].
  template <class T>
  matrix_view<T> query(matrix_view<T> whole, index_t pair, index_t member) const {
    return slice(whole, pair, query_head(pair, member) * shape->head_width, shape->head_width);
  }
  /// One column of a matrix [tokens, heads].
  template <class T>
  matrix_view<T> log_sum(matrix_view<T> whole, index_t pair, index_t member) const {
    return slice(whole, pair, query_head(pair, member), 1);
  }
  index_t query_head(index_t pair, index_t member) const {
    return pair % shape->kv_head_count * group_size() + member;
  }
  index_t group_size() const { return shape->head_count / shape->kv_head_count; }
};

/// mixed = softmax(q k^T / sqrt(head_width), causal) v for every head.
///
/// qkv        [tokens, qkv_width]    rotated heads
/// mixed      [tokens, query_width]
/// log_sums   [tokens, heads]        log sum exp of each query's scores, or empty
/// scratch    [attention_worker_count, scratch_size(...)]
template <real T>
struct attention {
  attention_layout layout;
  matrix_view<T const> qkv;
  matrix_view<T> mixed;
  matrix_view<T> log_sums;
  matrix_view<T> scratch;

  static constexpr index_t scratch_size(config const& shape, index_t longest) {
    return (shape.head_width + 1) * padded(longest);
  }

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t worker) const {
    if (lanes.lane() != 0) return;
    for (index_t pair = layout.first_pair(worker); pair < layout.first_pair(worker + 1); ++pair) {
      run(pair, scratch.row(worker).data);
    }
  }

 private:
  void run(index_t pair, T* memory) const {
    matrix_view<T const> const key = layout.key(qkv, pair);
    matrix_view<T const> const value = layout.value(qkv, pair);
    matrix_view<T> const keys{memory, key.cols, padded(key.rows)};
    T* const probabilities = memory + keys.rows * keys.cols;
    transpose_head<T>(key, keys);
    for (index_t member = 0; member < layout.group_size(); ++member) {
      matrix_view<T const> const query = layout.query(qkv, pair, member);
      matrix_view<T> const out = layout.query(mixed, pair, member);
      matrix_view<T> const sums =
          log_sums.data != nullptr ? layout.log_sum(log_sums, pair, member) : matrix_view<T>{};
      for (index_t i = 0; i < query.rows; ++i) {
        T const log_sum =
            attend<T>(query.row(i).data, keys, value, i + 1, probabilities, out.row(i).data);
        if (sums.data != nullptr) sums(i, 0) = log_sum;
      }
    }
  }
};

/// d_qkv from d_mixed. With p the probabilities and D_i = sum_j p_ij (do_i . v_j):
///
///   dv_j = sum_i p_ij do_i,  ds_ij = p_ij (do_i . v_j - D_i) / sqrt(head_width)
///   dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i
///
/// Source: Dao et al. 2022, "FlashAttention", appendix B.4.
template <real T>
struct attention_backward {
  attention_layout layout;
  matrix_view<T const> qkv;
  matrix_view<T const> log_sums;
  matrix_view<T const> d_mixed;
  matrix_view<T> d_qkv;
  matrix_view<T> scratch;

  static constexpr index_t scratch_size(config const& shape, index_t longest) {
    return (2 * shape.head_width + 2) * padded(longest);
  }

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t worker) const {
    if (lanes.lane() != 0) return;
    for (index_t pair = layout.first_pair(worker); pair < layout.first_pair(worker + 1); ++pair) {
      run(pair, scratch.row(worker).data);
    }
  }

 private:
  void run(index_t pair, T* memory) const {
    matrix_view<T const> const key = layout.key(qkv, pair);
    matrix_view<T const> const value = layout.value(qkv, pair);
    matrix_view<T> const d_key = layout.key(d_qkv, pair);
    matrix_view<T> const d_value = layout.value(d_qkv, pair);
    index_t const width = key.cols;
    index_t const columns = padded(key.rows);
    matrix_view<T> const keys{memory, width, columns};
    matrix_view<T> const values{memory + width * columns, width, columns};
    T* const p = memory + 2 * width * columns;
    T* const ds = p + columns;
    T const scale = T(1) / std::sqrt(static_cast<T>(width));
    transpose_head<T>(key, keys);
    transpose_head<T>(value, values);
    zero(d_key);
    zero(d_value);
    for (index_t member = 0; member < layout.group_size(); ++member) {
      matrix_view<T const> const query = layout.query(qkv, pair, member);
      matrix_view<T const> const d_out = layout.query(d_mixed, pair, member);
      matrix_view<T> const d_query = layout.query(d_qkv, pair, member);
      matrix_view<T const> const sums = layout.log_sum(log_sums, pair, member);
      zero(d_query);
      for (index_t i = 0; i < query.rows; ++i) {
        index_t const count = i + 1;
        score<T>(query.row(i).data, keys, count, p);
        exponentiate(p, count, scale, sums(i, 0));
        score<T>(d_out.row(i).data, values, count, ds);
        T const mean = lamina::lane_sum<T>(lamina::single_lane{}, 0, count,
                                           [=](index_t j) { return p[j] * ds[j]; });
        for (index_t j = 0; j < padded(count); ++j) ds[j] = p[j] * (ds[j] - mean) * scale;
        for (index_t j = 0; j < count; ++j) {
          add_scaled(ds[j], key.row(j).data, width, d_query.row(i).data);
          add_scaled(ds[j], query.row(i).data, width, d_key.row(j).data);
          add_scaled(p[j], d_out.row(i).data, width, d_value.row(j).data);
        }
      }
    }
  }

  static void zero(matrix_view<T> rows) {
    for (index_t i = 0; i < rows.rows; ++i) {
      for (index_t c = 0; c < rows.cols; ++c) rows(i, c) = T(0);
    }
  }
};

}  // namespace decoder
