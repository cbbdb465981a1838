// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Causal grouped-query attention over packed sequences, forward and backward, in blocks of queries
// that share their keys and values. Probabilities are recomputed from a saved log-sum, so memory
// grows with tokens and not with their square.
#pragma once

#include <cmath>

#include "examples/decoder/config.hpp"
#include "examples/decoder/tiles.hpp"
#include "lamina/core/math.hpp"

namespace decoder {

/// Query heads of successive positions that are worked together: about 24 rows, whole positions.
constexpr index_t block_positions(index_t group) { return group < 24 ? 24 / group : 1; }
constexpr index_t block_rows(index_t group) { return block_positions(group) * group; }

/// Rows of heads in memory, padded to whole tiles.
template <real T>
constexpr index_t padded_width(index_t head_width) {
  return round_up(head_width, tile_cols<T>);
}
template <class T>
column_pieces<T> head_rows(T* rows, index_t head_width) {
  constexpr index_t tile = tile_cols<std::remove_const_t<T>>;
  return {rows, tile, round_up(head_width, tile)};
}
/// Heads transposed, in pieces of tile_cols positions [head_width, tile_cols]: what scores are
/// computed from. Has room for round_up(positions, tile_cols) of them.
template <class T>
column_pieces<T> head_columns(T* columns, index_t head_width) {
  constexpr index_t tile = tile_cols<std::remove_const_t<T>>;
  return {columns, head_width * tile, tile};
}

/// Puts the head of one position in its column.
template <real T>
void place_column(T const* head, index_t head_width, index_t position, column_pieces<T> columns) {
  constexpr index_t tile = tile_cols<T>;
  T* const to = columns.data + position / tile * columns.piece + position % tile;
  for (index_t c = 0; c < head_width; ++c) to[c * tile] = head[c];
}

/// Puts all heads of a sequence in their columns; those that fill the last piece are 0.
template <real T>
void place_columns(matrix_view<T const> heads, column_pieces<T> columns) {
  for (index_t j = 0; j < heads.rows; ++j) {
    place_column(heads.row(j).data, heads.cols, j, columns);
  }
  constexpr index_t tile = tile_cols<T>;
  for (index_t j = heads.rows; j < round_up(heads.rows, tile); ++j) {
    T* const to = columns.data + j / tile * columns.piece + j % tile;
    for (index_t c = 0; c < heads.cols; ++c) to[c * tile] = T(0);
  }
}

/// Copies a row of heads, scaled; what fills the last tile is 0.
template <real T>
void place_row(T const* head, index_t head_width, T scale, T* row) {
  for (index_t c = 0; c < head_width; ++c) row[c] = scale * head[c];
  for (index_t c = head_width; c < padded_width<T>(head_width); ++c) row[c] = T(0);
}

/// The query heads of one kv head at successive positions of a sequence, or what has their shape.
///
/// first  position of the first row
/// heads  [positions, group x head_width]
template <class T>
struct head_block {
  matrix_view<T> heads;
  index_t first;
  index_t group;

  /// `count` positions of a sequence from `first` on.
  static head_block of(matrix_view<T> sequence, index_t first, index_t group) {
    index_t const left = sequence.rows - first;
    index_t const count = left < block_positions(group) ? left : block_positions(group);
    return {sequence.row_block(first, count), first, group};
  }
  index_t row_count() const { return heads.rows * group; }
  index_t head_width() const { return heads.cols / group; }
  T* row(index_t r) const { return heads.row(r / group).data + r % group * head_width(); }
  /// Positions that row r sees, and the last row.
  index_t seen(index_t r) const { return first + r / group + 1; }
  index_t seen() const { return first + heads.rows; }

  /// All rows, scaled, as head_rows has them.
  void gather(std::remove_const_t<T> scale, std::remove_const_t<T>* rows) const {
    index_t const width = head_width(), stride = padded_width<std::remove_const_t<T>>(width);
    for (index_t r = 0; r < row_count(); ++r) place_row(row(r), width, scale, rows + r * stride);
  }
};

/// scores[j] = e^(scores[j] - shift) for j < count, 0 in the rest of `size`.
template <real T>
void exponentiate(T* scores, index_t count, index_t size, T shift) {
  for (index_t j = 0; j < count; ++j) scores[j] = lamina::fast_exp(scores[j] - shift);
  for (index_t j = count; j < size; ++j) scores[j] = T(0);
}

/// Elements of scratch that attend() needs for sequences of up to `longest` positions.
template <real T>
constexpr index_t attend_scratch_size(index_t head_width, index_t group, index_t longest) {
  return block_rows(group) * (2 * padded_width<T>(head_width) + round_up(longest, tile_cols<T>));
}

/// mixed = softmax(q k^T / sqrt(head_width)) v for a block of queries, each over the positions up
/// to its own. A row's bits do not depend on the rows beside it.
///
/// keys      head_columns, values  head_rows of the positions seen
/// mixed     as queries
/// log_sums  [positions, group]  log sum exp of each row's scores, or empty
template <real T>
void attend(head_block<T const> const& queries, column_pieces<T const> keys,
            column_pieces<T const> values, T* scratch, head_block<T> const& mixed,
            matrix_view<T> log_sums) {
  lamina::single_lane const lane;
  index_t const rows = queries.row_count(), width = queries.head_width();
  index_t const stride = padded_width<T>(width), cols = round_up(queries.seen(), tile_cols<T>);
  T* const scaled = scratch;
  T* const out = scaled + rows * stride;
  T* const scores = out + rows * stride;
  queries.gather(T(1) / std::sqrt(static_cast<T>(width)), scaled);
  multiply<left_factor::as_it_is, result::replace>(rows, width, cols, scaled, stride, keys, scores,
                                                   cols);
  for (index_t r = 0; r < rows; ++r) {
    T* const p = scores + r * cols;
    index_t const seen = queries.seen(r);
    T const peak = lamina::lane_max<T>(lane, 1, seen, p[0], [p](index_t j) { return p[j]; });
    exponentiate(p, seen, cols, peak);
    T const total = lamina::lane_sum<T>(lane, 0, seen, [p](index_t j) { return p[j]; });
    if (log_sums.data != nullptr) {
      log_sums(r / queries.group, r % queries.group) = peak + std::log(total);
    }
    scaled[r] = T(1) / total;  // the queries are done with
  }
  multiply<left_factor::as_it_is, result::replace>(rows, queries.seen(), width, scores, cols,
                                                   values, out, stride);
  for (index_t r = 0; r < rows; ++r) {
    T const inverse = scaled[r];
    T* const to = mixed.row(r);
    for (index_t c = 0; c < width; ++c) to[c] = inverse * out[r * stride + c];
  }
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
  /// The query heads that share the pair's kv head; of qkv, or of a matrix [tokens, query_width].
  template <class T>
  matrix_view<T> queries(matrix_view<T> whole, index_t pair) const {
    index_t const width = group_size() * shape->head_width;
    return slice(whole, pair, pair % shape->kv_head_count * width, width);
  }
  /// Their columns of a matrix [tokens, heads].
  template <class T>
  matrix_view<T> log_sums(matrix_view<T> whole, index_t pair) const {
    return slice(whole, pair, pair % shape->kv_head_count * group_size(), group_size());
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
    index_t const whole = round_up(longest, tile_cols<T>);
    index_t const group = shape.head_count / shape.kv_head_count;
    return whole * (shape.head_width + padded_width<T>(shape.head_width)) +
           attend_scratch_size<T>(shape.head_width, group, longest);
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
    index_t const width = key.cols, whole = round_up(key.rows, tile_cols<T>);
    auto const keys = head_columns(memory, width);
    auto const values = head_rows(memory + whole * width, width);
    T* const rest = values.data + whole * values.row;
    place_columns(key, keys);
    for (index_t j = 0; j < value.rows; ++j) {
      place_row(value.row(j).data, width, T(1), values.data + j * values.row);
    }
    matrix_view<T const> const queries = layout.queries(qkv, pair);
    matrix_view<T> const out = layout.queries(mixed, pair);
    matrix_view<T> const sums =
        log_sums.data != nullptr ? layout.log_sums(log_sums, pair) : matrix_view<T>{};
    index_t const group = layout.group_size();
    for (index_t first = 0; first < queries.rows; first += block_positions(group)) {
      auto const block = head_block<T const>::of(queries, first, group);
      attend<T>(block, keys, values, rest, head_block<T>::of(out, first, group),
                sums.data != nullptr ? sums.row_block(first, block.heads.rows) : sums);
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
    index_t const whole = round_up(longest, tile_cols<T>);
    index_t const rows = block_rows(shape.head_count / shape.kv_head_count);
    index_t const stride = padded_width<T>(shape.head_width);
    return whole * (2 * shape.head_width + 3 * stride + 2 * rows) + 3 * rows * stride;
  }

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t worker) const {
    if (lanes.lane() != 0) return;
    for (index_t pair = layout.first_pair(worker); pair < layout.first_pair(worker + 1); ++pair) {
      run(pair, scratch.row(worker).data);
    }
  }

 private:
  // One pair's share of the scratch.
  struct workspace {
    T *key_columns, *value_columns;  // [head_width, positions] each, in pieces
    T *keys, *d_keys, *d_values;     // [positions, stride] each
    T *queries, *d_out, *d_queries;  // [block rows, stride] each
    T *p, *ds;                       // [block rows, positions] each
  };

  workspace lay_out(T* memory, index_t width, index_t whole) const {
    auto const take = [&memory](index_t size) {
      T* const part = memory;
      memory += size;
      return part;
    };
    index_t const rows = block_rows(layout.group_size()), stride = padded_width<T>(width);
    workspace w;
    for (T** part : {&w.key_columns, &w.value_columns}) *part = take(whole * width);
    for (T** part : {&w.keys, &w.d_keys, &w.d_values}) *part = take(whole * stride);
    for (T** part : {&w.queries, &w.d_out, &w.d_queries}) *part = take(rows * stride);
    for (T** part : {&w.p, &w.ds}) *part = take(rows * whole);
    return w;
  }

  void run(index_t pair, T* memory) const {
    matrix_view<T const> const key = layout.key(qkv, pair);
    matrix_view<T const> const value = layout.value(qkv, pair);
    index_t const count = key.rows, width = key.cols, stride = padded_width<T>(width);
    workspace const w = lay_out(memory, width, round_up(count, tile_cols<T>));
    place_columns(key, head_columns(w.key_columns, width));
    place_columns(value, head_columns(w.value_columns, width));
    for (index_t j = 0; j < count; ++j) {
      place_row(key.row(j).data, width, T(1), w.keys + j * stride);
    }
    for (index_t i = 0; i < count * stride; ++i) w.d_keys[i] = w.d_values[i] = T(0);

    matrix_view<T const> const queries = layout.queries(qkv, pair);
    matrix_view<T const> const d_out = layout.queries(d_mixed, pair);
    matrix_view<T> const d_queries = layout.queries(d_qkv, pair);
    matrix_view<T const> const sums = layout.log_sums(log_sums, pair);
    index_t const group = layout.group_size();
    for (index_t first = 0; first < count; first += block_positions(group)) {
      run_block(w, head_block<T const>::of(queries, first, group),
                head_block<T const>::of(d_out, first, group),
                head_block<T>::of(d_queries, first, group), sums);
    }
    matrix_view<T> const d_key = layout.key(d_qkv, pair), d_value = layout.value(d_qkv, pair);
    for (index_t j = 0; j < count; ++j) {
      for (index_t c = 0; c < width; ++c) {
        d_key(j, c) = w.d_keys[j * stride + c];
        d_value(j, c) = w.d_values[j * stride + c];
      }
    }
  }

  void run_block(workspace const& w, head_block<T const> const& queries,
                 head_block<T const> const& d_out, head_block<T> const& d_queries,
                 matrix_view<T const> sums) const {
    using left = left_factor;
    index_t const rows = queries.row_count(), width = queries.head_width(), seen = queries.seen();
    index_t const stride = padded_width<T>(width), cols = round_up(seen, tile_cols<T>);
    T const scale = T(1) / std::sqrt(static_cast<T>(width));
    queries.gather(scale, w.queries);
    d_out.gather(T(1), w.d_out);
    multiply<left::as_it_is, result::replace>(rows, width, cols, w.queries, stride,
                                              head_columns<T const>(w.key_columns, width), w.p,
                                              cols);
    multiply<left::as_it_is, result::replace>(rows, width, cols, w.d_out, stride,
                                              head_columns<T const>(w.value_columns, width), w.ds,
                                              cols);
    for (index_t r = 0; r < rows; ++r) {
      T* const p = w.p + r * cols;
      T* const ds = w.ds + r * cols;
      exponentiate(p, queries.seen(r), cols,
                   sums(queries.first + r / queries.group, r % queries.group));
      T const mean = lamina::lane_sum<T>(lamina::single_lane{}, 0, queries.seen(r),
                                         [=](index_t j) { return p[j] * ds[j]; });
      for (index_t j = 0; j < cols; ++j) ds[j] = p[j] * (ds[j] - mean);
    }
    multiply<left::as_it_is, result::replace>(
        rows, seen, width, w.ds, cols, head_rows<T const>(w.keys, width), w.d_queries, stride);
    multiply<left::transposed, result::add>(seen, rows, width, w.ds, cols,
                                            head_rows<T const>(w.queries, width), w.d_keys, stride);
    multiply<left::transposed, result::add>(seen, rows, width, w.p, cols,
                                            head_rows<T const>(w.d_out, width), w.d_values, stride);
    for (index_t r = 0; r < rows; ++r) {
      T* const to = d_queries.row(r);
      for (index_t c = 0; c < width; ++c) to[c] = scale * w.d_queries[r * stride + c];
    }
  }
};

}  // namespace decoder
