// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Causal grouped-query attention on a device: blocks of queries pass over their keys in tiles that
// the lanes of a group share. Probabilities never reach memory; the backward pass computes them
// again from the saved log-sums. No two groups write the same element, so results are the same
// every time.
#pragma once

#include <cmath>

#include "examples/decoder/config.hpp"
#include "examples/decoder/device/chip_tile.hpp"
#include "lamina/core/math.hpp"

namespace decoder {

/// Successive tokens of a sequence that are worked together.
///
/// token  the first of them
/// count  how many
/// keys   row of the sequence's first key
/// end    the token after the sequence's last
struct attention_block {
  index_t token;
  index_t count;
  index_t keys;
  index_t end;
};

/// How heads are shared and worked.
///
/// rows   of a tile: as many queries (positions x heads), or keys, as a group of lanes can keep
/// heads  query heads of a kv head that are worked together
struct attention_tiling {
  index_t head_count;
  index_t kv_head_count;
  index_t width;
  int rows;
  int heads;

  static constexpr attention_tiling with_rows(config const& shape, int rows) {
    index_t const group = shape.head_count / shape.kv_head_count;
    return {shape.head_count, shape.kv_head_count, shape.head_width, rows,
            static_cast<int>(group < rows ? group : rows)};
  }
  /// For tiles of T.
  template <real T>
  static constexpr attention_tiling of(config const& shape) {
    int rows = 32;
    while (rows > 4 && chip_bytes<T>(shape.head_width, rows) > (index_t{112} << 10)) rows /= 2;
    return with_rows(shape, rows);
  }
  /// Rows of rounded tiles (narrow_attention.hpp): of queries, and of keys whose gradients are
  /// summed.
  static constexpr int narrow_queries = 128;
  static constexpr int narrow_keys = 64;

  /// Of the most that a body keeps: six tiles of heads, two of scores, three values a row.
  template <real T>
  static constexpr index_t chip_bytes(index_t width, int rows) {
    return (6 * rows * chip_stride(width) + 2 * rows * chip_stride(rows) + 3 * rows) *
           static_cast<index_t>(sizeof(T));
  }

  /// Successive positions in a block of queries.
  constexpr index_t positions() const { return rows / heads; }
  LAMINA_HOST_DEVICE constexpr index_t group() const { return head_count / kv_head_count; }
  /// Parts that the heads of a group are worked in.
  LAMINA_HOST_DEVICE constexpr index_t parts() const { return (group() + heads - 1) / heads; }
  /// Tiles of queries that blocks make.
  constexpr index_t query_work_count(index_t block_count) const {
    return block_count * kv_head_count * parts();
  }
};

/// A tile of queries: row r is head r % heads of the part, at position r / heads of the block.
struct query_rows {
  index_t token, count;
  index_t first_head, end_head;  // of the part
  int heads;
  unsigned reciprocal;  // 2^16 / heads, rounded down, plus 1

  LAMINA_HOST_DEVICE int size() const { return static_cast<int>(count * heads); }
  LAMINA_HOST_DEVICE int row_count() const { return whole_quads(size()); }
  // r / heads by a product, which takes devices less time: exact while r x heads < 2^16.
  LAMINA_HOST_DEVICE int position_of(int r) const {
    return static_cast<int>(static_cast<unsigned>(r) * reciprocal >> 16);
  }
  LAMINA_HOST_DEVICE bool holds(int r) const {
    return position_of(r) < count && head_of(r) < end_head;
  }
  LAMINA_HOST_DEVICE index_t token_of(int r) const { return token + position_of(r); }
  LAMINA_HOST_DEVICE index_t head_of(int r) const {
    return first_head + r - position_of(r) * heads;
  }
  /// The head of a row in a matrix [tokens, heads x width]; null for a row that fills a tile up.
  template <class T>
  LAMINA_HOST_DEVICE T* head(matrix_view<T> matrix, int r, index_t width) const {
    return holds(r) ? held_head(matrix, r, width) : nullptr;
  }
  /// The same, of a row that has a head.
  template <class T>
  LAMINA_HOST_DEVICE T* held_head(matrix_view<T> matrix, int r, index_t width) const {
    int const position = position_of(r), stride = static_cast<int>(matrix.stride);
    return matrix.row(token).data + first_head * width + position * stride +
           (r - position * heads) * static_cast<int>(width);
  }
};

/// Part `part` of the query heads of `kv_head`, at `count` positions from `token` on.
LAMINA_HOST_DEVICE inline query_rows query_rows_of(attention_tiling const& t, index_t kv_head,
                                                   index_t part, index_t token, index_t count) {
  index_t const first = kv_head * t.group() + part * t.heads;
  index_t const end = (kv_head + 1) * t.group();
  return {token,   count,
          first,   first + t.heads < end ? first + t.heads : end,
          t.heads, 65536u / static_cast<unsigned>(t.heads) + 1};
}

/// A block of queries as one of its kv heads sees them, or a part of their heads.
struct query_work {
  attention_block block;
  index_t kv_head;
  query_rows own;
};

/// Work `row` of tiling.query_work_count(blocks.size).
LAMINA_HOST_DEVICE inline query_work query_work_of(attention_tiling const& t,
                                                   vector_view<attention_block const> blocks,
                                                   index_t row) {
  index_t const part = row % t.parts(), pair = row / t.parts();
  index_t const kv_head = pair % t.kv_head_count;
  attention_block const block = blocks[pair / t.kv_head_count];
  return {block, kv_head, query_rows_of(t, kv_head, part, block.token, block.count)};
}

/// mixed = softmax(q k^T / sqrt(head_width)) v for every head, each query over the keys of its
/// sequence up to its own position.
///
/// blocks     of at most tiling.positions() queries
/// queries    [tokens, >= query_width]
/// keys, values  [rows, >= key_width]    of all sequences; a sequence's are successive rows
/// positions  [tokens]                   of each query in its sequence
/// mixed      [tokens, query_width]
/// log_sums   [tokens, heads]            log sum exp of each query's scores, or empty
template <real T>
struct attention_arguments {
  attention_tiling tiling;
  vector_view<attention_block const> blocks;
  matrix_view<T const> queries;
  matrix_view<T const> keys;
  matrix_view<T const> values;
  vector_view<index_t const> positions;
  matrix_view<T> mixed;
  matrix_view<T> log_sums;

  index_t row_count() const { return tiling.query_work_count(blocks.size); }
};

/// Attention by tiles of T. Run over row_count() rows.
/// Source: Dao et al. 2022, "FlashAttention", algorithm 1.
template <real T>
struct tiled_attention {
  attention_arguments<T> of;

  static constexpr auto schedule = lamina::row_schedule::block;

  index_t row_count() const { return of.row_count(); }
  index_t shared_bytes() const {
    int const rows = of.tiling.rows;
    return (3 * rows * chip_stride(of.tiling.width) + rows * chip_stride(rows) +
            2 * rows * (rows / 4) + 4 * rows) *
           static_cast<index_t>(sizeof(T));
  }

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    query_work const work = query_work_of(of.tiling, of.blocks, row);
    attention_block const& block = work.block;
    query_rows const& own = work.own;
    index_t const width = of.tiling.width, first_position = of.positions[block.token];
    int const rows = own.row_count(), tile = of.tiling.rows, quads = tile / 4;

    chip_memory<T> memory{static_cast<T*>(lanes.shared())};
    chip_tile<T> const query = memory.tile(tile, width), sum = memory.tile(tile, width);
    chip_tile<T> const other = memory.tile(tile, width);  // keys, then values
    chip_tile<T> const weight = memory.tile(tile, tile);
    // Of a row, and of every fourth column of one or of four neighbours.
    T* const peak = memory.vector(tile);
    T* const next_peak = memory.vector(tile);
    T* const total = memory.vector(tile);
    T* const shrink = memory.vector(tile);
    T* const quad_peak = memory.vector(tile * quads);
    T* const quad_total = memory.vector(tile * quads);

    load_tile(lanes, query, rows, width, T(1) / std::sqrt(static_cast<T>(width)),
              [&](int r) { return own.head(of.queries, r, width); });
    clear_tile(lanes, sum, rows);
    each(lanes, rows, [&](int r) {
      peak[r] = T(-1e30);
      total[r] = T(0);
    });
    index_t const seen = first_position + block.count;  // by the last query
    for (index_t first = 0; first < seen; first += tile) {
      auto const key_row = [&](matrix_view<T const> from, int r) {
        return first + r < seen ? from.row(block.keys + first + r).data + work.kv_head * width
                                : static_cast<T const*>(nullptr);
      };
      load_tile(lanes, other, tile, width, T(1), [&](int r) { return key_row(of.keys, r); });
      lanes.sync();
      multiply_tiles<factor::by_rows, factor::by_rows>(
          lanes, rows, tile, whole_quads(width), query, other, [&](product_block<T> const& b) {
            for (int m = 0; m < 4; ++m) {
              int const r = b.row + m;
              index_t const last = own.holds(r) ? first_position + own.position_of(r) - first : -1;
              T top = T(-1e30);
              for (int n = 0; n < 4; ++n) {
                int const j = b.col + n * b.step;
                T const score = j <= last ? b.sum[m][n] : T(-3e38);
                weight(r, j) = score;
                top = score > top ? score : top;
              }
              quad_peak[r * quads + b.col] = top;
            }
          });
      lanes.sync();
      load_tile(lanes, other, tile, width, T(1), [&](int r) { return key_row(of.values, r); });
      each(lanes, rows * quads, [&](int e) {
        int const r = e / quads, j = e % quads * 4;
        T top = peak[r];
        for (int q = 0; q < quads; ++q) {
          T const other_peak = quad_peak[r * quads + q];
          top = other_peak > top ? other_peak : top;
        }
        quad<T> w = weight.load(r, j);
        for (T& x : w.v) x = lamina::row_exp(x - top);
        weight.store(r, j, w);
        quad_total[e] = (w.v[0] + w.v[1]) + (w.v[2] + w.v[3]);
        if (j != 0) return;
        next_peak[r] = top;
        shrink[r] = lamina::row_exp(peak[r] - top);
      });
      lanes.sync();
      each(lanes, rows, [&](int r) {
        T added = T(0);
        for (int q = 0; q < quads; ++q) added += quad_total[r * quads + q];
        peak[r] = next_peak[r];
        total[r] = total[r] * shrink[r] + added;
      });
      multiply_tiles<factor::by_rows, factor::by_depth>(
          lanes, rows, whole_quads(width), tile, weight, other, [&](product_block<T> const& b) {
            for (int m = 0; m < 4; ++m) {
              for (int n = 0; n < 4; ++n) {
                T& out = sum(b.row + m, b.col + n * b.step);
                out = out * shrink[b.row + m] + b.sum[m][n];
              }
            }
          });
      lanes.sync();
    }
    store_tile(
        lanes, sum, rows, width, [&](int r) { return T(1) / total[r]; },
        [&](int r) { return own.head(of.mixed, r, width); });
    if (of.log_sums.data == nullptr) return;
    each(lanes, rows, [&](int r) {
      if (own.holds(r)) of.log_sums(own.token_of(r), own.head_of(r)) = peak[r] + std::log(total[r]);
    });
  }

 private:
  template <class Lanes, class F>
  LAMINA_HOST_DEVICE static void each(Lanes lanes, int rows, F const& f) {
    for (int r = static_cast<int>(lanes.lane()); r < rows; r += static_cast<int>(lanes.count())) {
      f(r);
    }
  }
};

/// What both passes of the backward computation read. With p the probabilities, in matrices
/// [tokens, ...] over the tokens of a packed batch:
///
///   D_i = do_i . o_i,  ds_ij = p_ij (do_i . v_j - D_i) / sqrt(head_width)
///   dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dv_j = sum_i p_ij do_i
///
/// qkv       [tokens, qkv_width]    rotated heads
/// mixed     [tokens, query_width]  what tiled_attention made of them
/// log_sums  [tokens, heads]
/// d_mixed   [tokens, query_width]
/// products  [tokens, heads]        D, written by the first pass, read by the second
/// d_qkv     [tokens, qkv_width]
/// Source: Dao et al. 2022, "FlashAttention", appendix B.4; Dao 2023, "FlashAttention-2",
/// section 3.1.2 (D from the output).
template <real T>
struct attention_gradients {
  attention_tiling tiling;
  matrix_view<T const> qkv;
  matrix_view<T const> mixed;
  matrix_view<T const> log_sums;
  matrix_view<T const> d_mixed;
  matrix_view<T> products;
  matrix_view<T> d_qkv;

  LAMINA_HOST_DEVICE T scale() const { return T(1) / std::sqrt(static_cast<T>(tiling.width)); }
  template <class U>
  LAMINA_HOST_DEVICE U* key(matrix_view<U> matrix, index_t token, index_t kv_head) const {
    return matrix.row(token).data + (tiling.head_count + kv_head) * tiling.width;
  }
  template <class U>
  LAMINA_HOST_DEVICE U* value(matrix_view<U> matrix, index_t token, index_t kv_head) const {
    return matrix.row(token).data +
           (tiling.head_count + tiling.kv_head_count + kv_head) * tiling.width;
  }
  index_t chip_bytes() const { return tiling.chip_bytes<T>(tiling.width, tiling.rows); }

  /// p of a tile of queries and the keys from `first_key` on, and p (do . v - D) of the same.
  template <class Lanes>
  LAMINA_HOST_DEVICE void scores(Lanes lanes, query_rows const& own, index_t first_key,
                                 chip_tile<T> query, chip_tile<T> key, chip_tile<T> d_out,
                                 chip_tile<T> value, T const* sums, T const* dots, chip_tile<T> p,
                                 chip_tile<T> ds) const {
    int const rows = own.row_count(), depth = whole_quads(tiling.width);
    multiply_tiles<factor::by_rows, factor::by_rows>(
        lanes, rows, tiling.rows, depth, query, key, [&](product_block<T> const& b) {
          for (int m = 0; m < 4; ++m) {
            int const r = b.row + m;
            index_t const last = own.holds(r) ? own.token_of(r) : -1;
            for (int n = 0; n < 4; ++n) {
              int const j = b.col + n * b.step;
              p(r, j) = first_key + j <= last ? lamina::row_exp(b.sum[m][n] - sums[r]) : T(0);
            }
          }
        });
    // The same lane has the same elements.
    multiply_tiles<factor::by_rows, factor::by_rows>(
        lanes, rows, tiling.rows, depth, d_out, value, [&](product_block<T> const& b) {
          for (int m = 0; m < 4; ++m) {
            for (int n = 0; n < 4; ++n) {
              int const r = b.row + m, j = b.col + n * b.step;
              ds(r, j) = p(r, j) * (b.sum[m][n] - dots[r]);
            }
          }
        });
  }
};

/// to += a b of tiles.
template <factor A, sharing_lane_group Lanes, real T>
LAMINA_HOST_DEVICE void add_product(Lanes lanes, int rows, int cols, int depth, chip_tile<T> a,
                                    chip_tile<T> b, chip_tile<T> to) {
  multiply_tiles<A, factor::by_depth>(
      lanes, rows, cols, depth, a, b, [&](product_block<T> const& block) {
        for (int m = 0; m < 4; ++m) {
          for (int n = 0; n < 4; ++n) {
            to(block.row + m, block.col + n * block.step) += block.sum[m][n];
          }
        }
      });
}

/// d_qkv's queries, and the products D. Run over row_count() rows.
///
/// blocks  of at most tiling.positions() positions
template <real T>
struct query_gradients {
  attention_gradients<T> from;
  vector_view<attention_block const> blocks;

  static constexpr auto schedule = lamina::row_schedule::block;

  index_t row_count() const { return from.tiling.query_work_count(blocks.size); }
  index_t shared_bytes() const { return from.chip_bytes(); }

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    attention_tiling const& tiling = from.tiling;
    query_work const work = query_work_of(tiling, blocks, row);
    attention_block const& block = work.block;
    query_rows const& own = work.own;
    index_t const kv_head = work.kv_head, width = tiling.width;
    int const rows = own.row_count(), tile = tiling.rows;
    int const lane = static_cast<int>(lanes.lane()), lane_count = static_cast<int>(lanes.count());

    chip_memory<T> memory{static_cast<T*>(lanes.shared())};
    chip_tile<T> const query = memory.tile(tile, width), d_out = memory.tile(tile, width);
    chip_tile<T> const d_query = memory.tile(tile, width);
    chip_tile<T> const key = memory.tile(tile, width), value = memory.tile(tile, width);
    chip_tile<T> const ds = memory.tile(tile, tile);
    T* const sums = memory.vector(tile);
    T* const dots = memory.vector(tile);

    chip_tile<T> const out = d_query;  // until D is known
    load_tile(lanes, query, rows, width, from.scale(),
              [&](int r) { return own.head(from.qkv, r, width); });
    load_tile(lanes, d_out, rows, width, T(1),
              [&](int r) { return own.head(from.d_mixed, r, width); });
    load_tile(lanes, out, rows, width, T(1), [&](int r) { return own.head(from.mixed, r, width); });
    lanes.sync();
    constexpr int parts = 8;  // of a row, as many as there are lanes for
    T* const partial = ds.data;
    for (int e = lane; e < rows * parts; e += lane_count) {
      int const r = e / parts;
      T dot = T(0);
      for (int c = e % parts; c < width; c += parts) dot += d_out(r, c) * out(r, c);
      partial[e] = dot;
    }
    lanes.sync();
    for (int r = lane; r < rows; r += lane_count) {
      T dot = T(0);
      for (int part = 0; part < parts; ++part) dot += partial[r * parts + part];
      dots[r] = dot;
      sums[r] = T(0);
      if (!own.holds(r)) continue;
      sums[r] = from.log_sums(own.token_of(r), own.head_of(r));
      from.products(own.token_of(r), own.head_of(r)) = dot;
    }
    lanes.sync();
    clear_tile(lanes, d_query, rows);
    index_t const end = block.token + block.count;
    for (index_t first = block.keys; first < end; first += tile) {
      load_tile(lanes, key, tile, width, T(1), [&](int r) {
        return first + r < end ? from.key(from.qkv, first + r, kv_head) : nullptr;
      });
      load_tile(lanes, value, tile, width, T(1), [&](int r) {
        return first + r < end ? from.value(from.qkv, first + r, kv_head) : nullptr;
      });
      lanes.sync();
      from.scores(lanes, own, first, query, key, d_out, value, sums, dots, ds, ds);
      lanes.sync();
      add_product<factor::by_rows>(lanes, rows, whole_quads(width), tile, ds, key, d_query);
      lanes.sync();
    }
    store_tile(
        lanes, d_query, rows, width, [&](int) { return from.scale(); },
        [&](int r) { return own.head(from.d_qkv, r, width); });
  }
};

/// d_qkv's keys and values, from the products D. Run over row_count() rows.
///
/// blocks  of at most tiling.rows positions
template <real T>
struct key_value_gradients {
  attention_gradients<T> from;
  vector_view<attention_block const> blocks;

  static constexpr auto schedule = lamina::row_schedule::block;

  index_t row_count() const { return blocks.size * from.tiling.kv_head_count; }
  index_t shared_bytes() const { return from.chip_bytes(); }

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    attention_tiling const& tiling = from.tiling;
    index_t const kv_head = row % tiling.kv_head_count, width = tiling.width;
    attention_block const block = blocks[row / tiling.kv_head_count];
    int const tile = tiling.rows, cols = whole_quads(width), keys = whole_quads(block.count);
    int const lane = static_cast<int>(lanes.lane()), lane_count = static_cast<int>(lanes.count());

    chip_memory<T> memory{static_cast<T*>(lanes.shared())};
    chip_tile<T> const key = memory.tile(tile, width), value = memory.tile(tile, width);
    chip_tile<T> const d_key = memory.tile(tile, width), d_value = memory.tile(tile, width);
    chip_tile<T> const query = memory.tile(tile, width), d_out = memory.tile(tile, width);
    chip_tile<T> const p = memory.tile(tile, tile), ds = memory.tile(tile, tile);
    T* const sums = memory.vector(tile);
    T* const dots = memory.vector(tile);

    load_tile(lanes, key, tile, width, T(1), [&](int r) {
      return r < block.count ? from.key(from.qkv, block.token + r, kv_head) : nullptr;
    });
    load_tile(lanes, value, tile, width, T(1), [&](int r) {
      return r < block.count ? from.value(from.qkv, block.token + r, kv_head) : nullptr;
    });
    clear_tile(lanes, d_key, tile);
    clear_tile(lanes, d_value, tile);
    index_t const step = tile / tiling.heads;
    for (index_t token = block.token; token < block.end; token += step) {
      index_t const count = block.end - token < step ? block.end - token : step;
      for (index_t part = 0; part < tiling.parts(); ++part) {
        query_rows const own = query_rows_of(tiling, kv_head, part, token, count);
        int const rows = own.row_count();
        load_tile(lanes, query, rows, width, from.scale(),
                  [&](int r) { return own.head(from.qkv, r, width); });
        load_tile(lanes, d_out, rows, width, T(1),
                  [&](int r) { return own.head(from.d_mixed, r, width); });
        for (int r = lane; r < rows; r += lane_count) {
          bool const holds = own.holds(r);
          sums[r] = holds ? from.log_sums(own.token_of(r), own.head_of(r)) : T(0);
          dots[r] = holds ? from.products(own.token_of(r), own.head_of(r)) : T(0);
        }
        lanes.sync();
        from.scores(lanes, own, block.token, query, key, d_out, value, sums, dots, p, ds);
        lanes.sync();
        add_product<factor::by_depth>(lanes, keys, cols, rows, p, d_out, d_value);
        add_product<factor::by_depth>(lanes, keys, cols, rows, ds, query, d_key);
        lanes.sync();
      }
    }
    auto const one = [](int) { return T(1); };
    store_tile(lanes, d_key, tile, width, one, [&](int r) {
      return r < block.count ? from.key(from.d_qkv, block.token + r, kv_head) : nullptr;
    });
    store_tile(lanes, d_value, tile, width, one, [&](int r) {
      return r < block.count ? from.value(from.d_qkv, block.token + r, kv_head) : nullptr;
    });
  }
};

}  // namespace decoder
