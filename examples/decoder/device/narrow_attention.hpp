// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The attention of models with narrow weights on a device: the passes of attention.hpp over tiles
// that are rounded as they are loaded, so that units for narrow products can multiply them. Scores,
// probabilities and sums are float, and stay with the lanes that hold them.
#pragma once

#include "examples/decoder/device/attention.hpp"
#include "lamina/core/row_chunks.hpp"
#include "lamina/core/tile_sums.hpp"

namespace decoder {

using lamina::shared_tile;
using lamina::storage_scalar;

/// Keys that queries pass over at a time, or queries that keys pass over: as many as leave the sums
/// of a wide head in registers.
template <int Width>
inline constexpr int narrow_step = Width <= 64 ? 64 : 32;

/// `count` rounded up to a multiple of 16, the rows of a product.
LAMINA_HOST_DEVICE constexpr int whole_blocks(int count) { return (count + 15) / 16 * 16; }

/// Takes tiles off a piece of shared memory. A row has 16 bytes more than it needs, so that
/// neighbouring rows lie in different banks.
template <storage_scalar N>
struct narrow_memory {
  N* next;

  static constexpr int padding = 16 / sizeof(N);
  static constexpr index_t bytes(int rows, int width) {
    return index_t{rows} * (width + padding) * static_cast<index_t>(sizeof(N));
  }
  LAMINA_HOST_DEVICE shared_tile<N> tile(int rows, int width) {
    shared_tile<N> const result{next, width + padding};
    next += rows * result.stride;
    return result;
  }
};

/// Whether 16 bytes can be read at a time of every head of `width` elements.
LAMINA_HOST_DEVICE inline bool has_whole_chunks(matrix_view<float const> matrix, index_t width) {
  return width % 8 == 0 && matrix.stride % 4 == 0 &&
         reinterpret_cast<std::uintptr_t>(matrix.data) % sizeof(quad<float>) == 0;
}

/// tile[r + s apart, :] = row(r, s)[0 .. width), rounded, for r < rows and all s < Count; times
/// `scale` for s = 0; 0 up to Width, and where holds(r) says that there is no such row. There is a
/// row 0.
///
/// whole  whether all rows start at multiples of 16 bytes, and have whole chunks
template <int Width, int Count, sharing_lane_group Lanes, storage_scalar N, class Holds, class Row>
LAMINA_HOST_DEVICE void load_rounded(Lanes lanes, shared_tile<N> tile, int apart, int rows,
                                     index_t width, bool whole, float scale, Holds const& holds,
                                     Row const& row) {
  using chunk = lamina::row_chunk<N>;
  constexpr int size = static_cast<int>(chunk::size), chunks = Width / size, quads = size / 4;
  constexpr int batch = 4;  // chunks that are asked for before one is used
  int const cols = static_cast<int>(width), step = static_cast<int>(lanes.count());
  for (int first = static_cast<int>(lanes.lane()); first < rows * chunks;
       first += batch / Count * step) {
    // Where nothing is held, row 0 is read, so that no branch keeps loads from their neighbours.
    float const* from[batch];
    bool held[batch];
    for (int i = 0; i < batch; ++i) {
      int const e = first + i / Count * step, r = e / chunks, col = e % chunks * size;
      held[i] = r < rows && col < cols && holds(r);
      from[i] = row(held[i] ? r : 0, i % Count) + (held[i] ? col : 0);
    }
    quad<float> loaded[batch][quads];
    if (whole) {
      for (int i = 0; i < batch; ++i) {
        for (int q = 0; q < quads; ++q) {
          loaded[i][q] = reinterpret_cast<quad<float> const*>(from[i])[q];
        }
      }
    } else {
      for (int i = 0; i < batch; ++i) {
        int const rest = cols - (first + i / Count * step) % chunks * size;
        for (int c = 0; c < size; ++c) loaded[i][c / 4].v[c % 4] = c < rest ? from[i][c] : 0.0f;
      }
    }
    for (int i = 0; i < batch; ++i) {
      int const e = first + i / Count * step, r = e / chunks;
      if (r >= rows) continue;
      chunk rounded;
      for (int c = 0; c < size; ++c) {
        float const value = held[i] ? loaded[i][c / 4].v[c % 4] : 0.0f;
        rounded.values[c] = static_cast<N>(i % Count == 0 ? scale * value : value);
      }
      *reinterpret_cast<chunk*>(tile.row(r + i % Count * apart) + e % chunks * size) = rounded;
    }
  }
}

/// row(r)[0 .. width) = scale(i) times what lanes hold of row r in their piece i, where row(r) is
/// not null.
template <class Sums, class Scale, class Row>
LAMINA_HOST_DEVICE void store_sums(Sums const& sums, index_t width, Scale const& scale,
                                   Row const& row) {
  for (int i = 0; i < sums.row_count(); ++i) {
    float* const to = row(sums.row(i));
    if (to == nullptr) continue;
    float const factor = scale(i);
    for (int j = 0; j < sums.col_count(); ++j) {
      if (sums.col(j) < width) to[sums.col(j)] = factor * sums(i, j);
    }
  }
}

/// Leaves a row of scores only `count` keys, and others no probability.
template <class Sums>
LAMINA_HOST_DEVICE void hide_unseen(Sums& scores, int i, int count) {
  if (count > scores.col(scores.col_count() - 1)) return;
  for (int j = 0; j < scores.col_count(); ++j) {
    if (scores.col(j) >= count) scores(i, j) = -3e38f;
  }
}

/// tiled_attention for heads of at most Width elements, with queries, keys, values and
/// probabilities rounded to N.
template <storage_scalar N, int Width>
struct narrow_attention {
  static constexpr int rows = attention_tiling::narrow_queries;
  static constexpr int step = narrow_step<Width>;
  static constexpr auto schedule = lamina::row_schedule::block;
  static constexpr unsigned lane_count = 2 * rows;

  attention_arguments<float> of;

  index_t row_count() const { return of.row_count(); }
  index_t shared_bytes() const { return narrow_memory<N>::bytes(rows + 2 * step, Width); }

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    query_work const work = query_work_of(of.tiling, of.blocks, row);
    query_rows const& own = work.own;
    index_t const width = of.tiling.width, first_key = work.block.keys;
    index_t const column = work.kv_head * width;
    int const used = own.size();
    int const first_position = static_cast<int>(of.positions[work.block.token]);
    int const seen = first_position + static_cast<int>(work.block.count);  // by the last query

    narrow_memory<N> memory{static_cast<N*>(lanes.shared())};
    auto const query = memory.tile(rows, Width);
    auto const key = memory.tile(step, Width), value = memory.tile(step, Width);
    load_rounded<Width, 1>(
        lanes, query, 0, whole_blocks(used), width, has_whole_chunks(of.queries, width),
        1.0f / std::sqrt(static_cast<float>(width)), [&](int r) { return own.holds(r); },
        [&](int r, int) { return own.held_head(of.queries, r, width); });

    lamina::tile_sums<Lanes, rows, Width> sum(lanes, used);
    float peak[sum.most_rows], total[sum.most_rows];
    int own_seen[sum.most_rows];
    for (int i = 0; i < sum.row_count(); ++i) {
      int const r = sum.row(i);
      own_seen[i] = own.holds(r) ? first_position + own.position_of(r) + 1 : 0;
      peak[i] = -1e30f;
      total[i] = 0;
    }
    bool const whole = has_whole_chunks(of.keys, width) && has_whole_chunks(of.values, width);
    float const* keys = of.keys.row(first_key).data + column;
    float const* values = of.values.row(first_key).data + column;
    int const key_stride = static_cast<int>(of.keys.stride);
    int const value_stride = static_cast<int>(of.values.stride);
    for (int first = 0; first < seen; first += step) {
      lanes.sync();
      load_rounded<Width, 2>(
          lanes, key, step, step, width, whole, 1, [&](int r) { return first + r < seen; },
          [&](int r, int s) { return s == 0 ? keys + r * key_stride : values + r * value_stride; });
      keys += index_t{step} * key_stride;
      values += index_t{step} * value_stride;
      lanes.sync();
      lamina::tile_sums<Lanes, rows, step> weight(lanes, used);
      weight.template add_transposed_product<Width>(query, key);
      for (int i = 0; i < weight.row_count(); ++i) {
        hide_unseen(weight, i, own_seen[i] - first);
        float top = peak[i];
        for (int j = 0; j < weight.col_count(); ++j) {
          top = weight(i, j) > top ? weight(i, j) : top;
        }
        top = weight.max_of_row(top);
        float const shrink = lamina::row_exp(peak[i] - top);
        float added = 0;
        for (int j = 0; j < weight.col_count(); ++j) {
          weight(i, j) = lamina::row_exp(weight(i, j) - top);
          added += weight(i, j);
        }
        peak[i] = top;
        total[i] = total[i] * shrink + added;
        if (shrink == 1) continue;
        for (int j = 0; j < sum.col_count(); ++j) sum(i, j) *= shrink;
      }
      sum.add_product(weight, value);
    }
    for (int i = 0; i < sum.row_count(); ++i) total[i] = sum.sum_of_row(total[i]);
    query_rows const to = query_work_of(of.tiling, of.blocks, row).own;  // not kept in registers
    store_sums(
        sum, width, [&](int i) { return 1.0f / total[i]; },
        [&](int r) { return to.head(of.mixed, r, width); });
    if (of.log_sums.data == nullptr || sum.col(0) != 0) return;
    for (int i = 0; i < sum.row_count(); ++i) {
      int const r = sum.row(i);
      if (to.holds(r)) {
        of.log_sums(to.token_of(r), to.head_of(r)) = peak[i] + std::log(total[i]);
      }
    }
  }
};

/// query_gradients for heads of at most Width elements, with all factors rounded to N. D is that
/// of the rounded d_mixed, so that rounding does not move the sum of a row of ds away from 0.
template <storage_scalar N, int Width>
struct narrow_query_gradients {
  static constexpr int rows = attention_tiling::narrow_queries;
  static constexpr int step = 32;  // two products and the gradient have to fit in registers
  static constexpr auto schedule = lamina::row_schedule::block;
  static constexpr unsigned lane_count = 2 * rows;

  attention_gradients<float> from;
  vector_view<attention_block const> blocks;

  index_t row_count() const { return from.tiling.query_work_count(blocks.size); }
  index_t shared_bytes() const { return narrow_memory<N>::bytes(2 * rows + 2 * step, Width); }

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    query_work const work = query_work_of(from.tiling, blocks, row);
    query_rows const& own = work.own;
    index_t const width = from.tiling.width, first_key = work.block.keys;
    int const used = own.size();
    int const first_position = static_cast<int>(work.block.token - first_key);
    int const seen = first_position + static_cast<int>(work.block.count);

    narrow_memory<N> memory{static_cast<N*>(lanes.shared())};
    auto const query = memory.tile(rows, Width), d_out = memory.tile(rows, Width);
    auto const key = memory.tile(step, Width), value = memory.tile(step, Width);
    bool const whole = has_whole_chunks(from.qkv, width);
    load_rounded<Width, 2>(
        lanes, query, rows, whole_blocks(used), width,
        whole && has_whole_chunks(from.d_mixed, width), from.scale(),
        [&](int r) { return own.holds(r); },
        [&](int r, int s) { return own.held_head(s == 0 ? from.qkv : from.d_mixed, r, width); });
    lanes.sync();

    lamina::tile_sums<Lanes, rows, Width> d_query(lanes, used);
    float const* out[d_query.most_rows];
    float log_sum[d_query.most_rows], dot[d_query.most_rows];
    int own_seen[d_query.most_rows];
    for (int i = 0; i < d_query.row_count(); ++i) {
      int const r = d_query.row(i);
      own_seen[i] = own.holds(r) ? first_position + own.position_of(r) + 1 : 0;
      log_sum[i] = own.holds(r) ? from.log_sums(own.token_of(r), own.head_of(r)) : 0;
      out[i] = own.head(from.mixed, r, width);
      dot[i] = 0;
    }
    for (int j = 0; j < d_query.col_count(); ++j) {
      int const c = d_query.col(j);
      for (int i = 0; i < d_query.row_count(); ++i) {
        if (out[i] == nullptr || c >= width) continue;
        dot[i] += static_cast<float>(d_out.row(d_query.row(i))[c]) * out[i][c];
      }
    }
    for (int i = 0; i < d_query.row_count(); ++i) {
      int const r = d_query.row(i);
      dot[i] = d_query.sum_of_row(dot[i]);
      if (own.holds(r) && d_query.col(0) == 0) {
        from.products(own.token_of(r), own.head_of(r)) = dot[i];
      }
    }
    float const* keys = from.key(from.qkv, first_key, work.kv_head);
    int const stride = static_cast<int>(from.qkv.stride);
    int const to_value = static_cast<int>(from.tiling.kv_head_count * width);
    for (int first = 0; first < seen; first += step) {
      lanes.sync();
      load_rounded<Width, 2>(
          lanes, key, step, step, width, whole, 1, [&](int r) { return first + r < seen; },
          [&](int r, int s) { return keys + r * stride + s * to_value; });
      keys += index_t{step} * stride;
      lanes.sync();
      lamina::tile_sums<Lanes, rows, step> ds(lanes, used), d_weight(lanes, used);
      ds.template add_transposed_product<Width>(query, key);
      d_weight.template add_transposed_product<Width>(d_out, value);
      for (int i = 0; i < ds.row_count(); ++i) {
        hide_unseen(ds, i, own_seen[i] - first);
        for (int j = 0; j < ds.col_count(); ++j) {
          float const p = lamina::row_exp(ds(i, j) - log_sum[i]);
          ds(i, j) = p * (d_weight(i, j) - dot[i]);
        }
      }
      d_query.add_product(ds, key);
    }
    query_rows const to = query_work_of(from.tiling, blocks, row).own;  // not kept in registers
    store_sums(
        d_query, width, [&](int) { return from.scale(); },
        [&](int r) { return to.head(from.d_qkv, r, width); });
  }
};

/// key_value_gradients for heads of at most Width elements, with all factors rounded to N.
///
/// blocks  of at most attention_tiling::narrow_keys positions
template <storage_scalar N, int Width>
struct narrow_key_value_gradients {
  static constexpr int rows = attention_tiling::narrow_keys;
  static constexpr int step = narrow_step<Width>;
  static constexpr auto schedule = lamina::row_schedule::block;
  static constexpr unsigned lane_count = 2 * rows;

  attention_gradients<float> from;
  vector_view<attention_block const> blocks;

  index_t row_count() const { return blocks.size * from.tiling.kv_head_count; }
  index_t shared_bytes() const {
    return narrow_memory<N>::bytes(2 * rows + 2 * step, Width) +
           step * static_cast<index_t>(sizeof(seen_query));
  }

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    attention_tiling const& tiling = from.tiling;
    index_t const kv_head = row % tiling.kv_head_count, width = tiling.width;
    attention_block const block = blocks[row / tiling.kv_head_count];
    int const used = static_cast<int>(block.count);

    narrow_memory<N> memory{static_cast<N*>(lanes.shared())};
    auto const key = memory.tile(rows, Width), value = memory.tile(rows, Width);
    auto const query = memory.tile(step, Width), d_out = memory.tile(step, Width);
    seen_query* const seen = reinterpret_cast<seen_query*>(memory.next);
    bool const whole = has_whole_chunks(from.qkv, width);
    bool const whole_queries = whole && has_whole_chunks(from.d_mixed, width);
    load_rounded<Width, 2>(
        lanes, key, rows, rows, width, whole, 1, [&](int r) { return r < used; },
        [&](int r, int s) {
          return s == 0 ? from.key(from.qkv, block.token + r, kv_head)
                        : from.value(from.qkv, block.token + r, kv_head);
        });

    lamina::tile_sums<Lanes, rows, Width> d_key(lanes, used), d_value(lanes, used);
    index_t const positions = step / tiling.heads;
    for (index_t token = block.token; token < block.end; token += positions) {
      index_t const count = block.end - token < positions ? block.end - token : positions;
      for (index_t part = 0; part < tiling.parts(); ++part) {
        query_rows const own = query_rows_of(tiling, kv_head, part, token, count);
        lanes.sync();
        load_rounded<Width, 2>(
            lanes, query, step, step, width, whole_queries, from.scale(),
            [&](int r) { return own.holds(r); },
            [&](int r, int s) {
              return own.held_head(s == 0 ? from.qkv : from.d_mixed, r, width);
            });
        for (int r = static_cast<int>(lanes.lane()); r < step;
             r += static_cast<int>(lanes.count())) {
          seen[r] = {};
          if (!own.holds(r)) continue;
          index_t const t = own.token_of(r), head = own.head_of(r);
          seen[r] = {from.log_sums(t, head), from.products(t, head),
                     static_cast<int>(t - block.token) + 1};
        }
        lanes.sync();
        lamina::tile_sums<Lanes, rows, step> weight(lanes, used), ds(lanes, used);
        weight.template add_transposed_product<Width>(key, query);
        ds.template add_transposed_product<Width>(value, d_out);
        for (int j = 0; j < ds.col_count(); ++j) {
          seen_query const q = seen[ds.col(j)];
          for (int i = 0; i < ds.row_count(); ++i) {
            float const p = ds.row(i) < q.key_count ? lamina::row_exp(weight(i, j) - q.log_sum) : 0;
            weight(i, j) = p;
            ds(i, j) = p * (ds(i, j) - q.dot);
          }
        }
        d_value.add_product(weight, d_out);
        d_key.add_product(ds, query);
      }
    }
    auto const one = [](int) { return 1.0f; };
    store_sums(d_key, width, one, [&](int r) {
      return r < used ? from.key(from.d_qkv, block.token + r, kv_head) : nullptr;
    });
    store_sums(d_value, width, one, [&](int r) {
      return r < used ? from.value(from.d_qkv, block.token + r, kv_head) : nullptr;
    });
  }

 private:
  // What a query says to the keys of the block.
  struct seen_query {
    float log_sum, dot;
    int key_count;  // how many of the keys it sees, and more
  };
};

}  // namespace decoder
