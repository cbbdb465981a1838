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

/// Rows of a head's keys or values that lie `stride` elements apart; the last are missing.
struct successive_heads {
  float const* first;
  int stride, count;

  LAMINA_HOST_DEVICE bool holds(int r) const { return r < count; }
  LAMINA_HOST_DEVICE float const* operator()(int r) const { return first + r * stride; }
};
/// Rows of queries, or of what lies like them.
struct query_heads {
  query_rows own;
  matrix_view<float const> matrix;
  int width;

  LAMINA_HOST_DEVICE bool holds(int r) const { return own.holds(r); }
  LAMINA_HOST_DEVICE float const* operator()(int r) const {
    return own.held_head(matrix, r, width);
  }
};

/// Takes Rows rows of heads to a tile: ask() has them read, put() rounds and writes them, so that
/// lanes may do something else in between. tile_sums_lanes lanes hold all chunks meanwhile; of
/// fewer lanes each holds its first ones, and put() reads the others.
///
/// width  elements of a head
/// whole  whether all heads start at multiples of 16 bytes, and have whole chunks
template <storage_scalar N, int Width, int Rows>
class rounding_loader {
 public:
  LAMINA_HOST_DEVICE rounding_loader(index_t width, bool whole)
      : width_(static_cast<int>(width)), whole_(whole) {}

  /// Row r is row(r), where row.holds(r). There is a row 0.
  template <sharing_lane_group Lanes, class Row>
  LAMINA_HOST_DEVICE void ask(Lanes lanes, Row const& row) {
    read(static_cast<int>(lanes.lane()), static_cast<int>(lanes.count()), Rows, row);
  }
  /// tile[r, :] = scale row(r), rounded; 0 from `width` up to Width, and where there is no row.
  template <sharing_lane_group Lanes, class Row>
  LAMINA_HOST_DEVICE void put(Lanes lanes, shared_tile<N> tile, Row const& row, float scale = 1) {
    int const lane = static_cast<int>(lanes.lane()), step = static_cast<int>(lanes.count());
    write(lane, step, tile, Rows, row, scale);
    if constexpr (!lamina::multiplying_lane_group<Lanes>) {
      load(lane + batch * step, step, tile, Rows, row, scale);
    }
  }
  /// The same at once, for any number of rows.
  template <sharing_lane_group Lanes, class Row>
  LAMINA_HOST_DEVICE void load(Lanes lanes, shared_tile<N> tile, int rows, Row const& row,
                               float scale = 1) {
    load(static_cast<int>(lanes.lane()), static_cast<int>(lanes.count()), tile, rows, row, scale);
  }

 private:
  using chunk = lamina::row_chunk<N>;
  static constexpr int size = static_cast<int>(chunk::size), chunks = Width / size;
  static constexpr int quads = size / 4;
  static_assert(Rows * chunks % lamina::tile_sums_lanes == 0);
  static constexpr int batch = Rows * chunks / static_cast<int>(lamina::tile_sums_lanes);

  template <class Row>
  LAMINA_HOST_DEVICE void load(int first, int step, shared_tile<N> tile, int count, Row const& row,
                               float scale) {
    for (; first < count * chunks; first += batch * step) {
      read(first, step, count, row);
      write(first, step, tile, count, row, scale);
    }
  }
  template <class Row>
  LAMINA_HOST_DEVICE bool holds(int e, int count, Row const& row) const {
    return e < count * chunks && e % chunks * size < width_ && row.holds(e / chunks);
  }
  template <class Row>
  LAMINA_HOST_DEVICE void read(int first, int step, int count, Row const& row) {
    // Where nothing is held, row 0 is read, so that no branch keeps loads from their neighbours.
    float const* from[batch];
    for (int i = 0; i < batch; ++i) {
      int const e = first + i * step;
      bool const held = holds(e, count, row);
      from[i] = row(held ? e / chunks : 0) + (held ? e % chunks * size : 0);
    }
    if (whole_) {
      for (int i = 0; i < batch; ++i) {
        for (int q = 0; q < quads; ++q) {
          loaded_[i][q] = reinterpret_cast<quad<float> const*>(from[i])[q];
        }
      }
    } else {
      for (int i = 0; i < batch; ++i) {
        int const rest = width_ - (first + i * step) % chunks * size;
        for (int c = 0; c < size; ++c) loaded_[i][c / 4].v[c % 4] = c < rest ? from[i][c] : 0.0f;
      }
    }
  }
  template <class Row>
  LAMINA_HOST_DEVICE void write(int first, int step, shared_tile<N> tile, int count, Row const& row,
                                float scale) const {
    for (int i = 0; i < batch; ++i) {
      int const e = first + i * step;
      if (e >= count * chunks) continue;
      bool const held = holds(e, count, row);
      chunk rounded;
      for (int c = 0; c < size; ++c) {
        rounded.values[c] = static_cast<N>(held ? scale * loaded_[i][c / 4].v[c % 4] : 0.0f);
      }
      *reinterpret_cast<chunk*>(tile.row(e / chunks) + e % chunks * size) = rounded;
    }
  }

  int width_;
  bool whole_;
  quad<float> loaded_[batch][quads];
};

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
  static constexpr unsigned lane_count = lamina::tile_sums_lanes;

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
    rounding_loader<N, Width, step> query_loader(width, has_whole_chunks(of.queries, width));
    query_loader.load(lanes, query, whole_blocks(used),
                      query_heads{own, of.queries, static_cast<int>(width)},
                      1.0f / std::sqrt(static_cast<float>(width)));

    lamina::tile_sums<Lanes, rows, Width> sum(lanes, used);
    float peak[sum.most_rows], total[sum.most_rows];
    int own_seen[sum.most_rows];
    for (int i = 0; i < sum.row_count(); ++i) {
      int const r = sum.row(i);
      own_seen[i] = own.holds(r) ? first_position + own.position_of(r) + 1 : 0;
      peak[i] = -1e30f;
      total[i] = 0;
    }
    rounding_loader<N, Width, step> loader(
        width, has_whole_chunks(of.keys, width) && has_whole_chunks(of.values, width));
    auto const rows_of = [&](matrix_view<float const> matrix, int first) {
      return successive_heads{matrix.row(first_key + first).data + column,
                              static_cast<int>(matrix.stride), seen - first};
    };
    loader.ask(lanes, rows_of(of.keys, 0));
    for (int first = 0; first < seen; first += step) {
      // Values are read while scores are computed, the next keys while values are mixed.
      loader.put(lanes, key, rows_of(of.keys, first));
      loader.ask(lanes, rows_of(of.values, first));
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
      loader.put(lanes, value, rows_of(of.values, first));
      if (first + step < seen) loader.ask(lanes, rows_of(of.keys, first + step));
      lanes.sync();
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
  static constexpr unsigned lane_count = lamina::tile_sums_lanes;

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
    rounding_loader<N, Width, step> loader(
        width, has_whole_chunks(from.qkv, width) && has_whole_chunks(from.d_mixed, width));
    loader.load(lanes, query, whole_blocks(used),
                query_heads{own, from.qkv, static_cast<int>(width)}, from.scale());
    loader.load(lanes, d_out, whole_blocks(used),
                query_heads{own, from.d_mixed, static_cast<int>(width)});
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
    auto const keys = [&](int first) {
      return successive_heads{from.key(from.qkv, first_key + first, work.kv_head),
                              static_cast<int>(from.qkv.stride), seen - first};
    };
    auto const values = [&](int first) {
      return successive_heads{from.value(from.qkv, first_key + first, work.kv_head),
                              static_cast<int>(from.qkv.stride), seen - first};
    };
    loader.ask(lanes, keys(0));
    for (int first = 0; first < seen; first += step) {
      // Values are read while scores are computed, the next keys while gradients are.
      loader.put(lanes, key, keys(first));
      loader.ask(lanes, values(first));
      lanes.sync();
      lamina::tile_sums<Lanes, rows, step> ds(lanes, used), d_weight(lanes, used);
      ds.template add_transposed_product<Width>(query, key);
      loader.put(lanes, value, values(first));
      lanes.sync();
      d_weight.template add_transposed_product<Width>(d_out, value);
      if (first + step < seen) loader.ask(lanes, keys(first + step));
      for (int i = 0; i < ds.row_count(); ++i) {
        hide_unseen(ds, i, own_seen[i] - first);
        for (int j = 0; j < ds.col_count(); ++j) {
          float const p = lamina::row_exp(ds(i, j) - log_sum[i]);
          ds(i, j) = p * (d_weight(i, j) - dot[i]);
        }
      }
      d_query.add_product(ds, key);
      lanes.sync();
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
  static constexpr unsigned lane_count = lamina::tile_sums_lanes;

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
    int const lane = static_cast<int>(lanes.lane()), lane_step = static_cast<int>(lanes.count());

    narrow_memory<N> memory{static_cast<N*>(lanes.shared())};
    auto const key = memory.tile(rows, Width), value = memory.tile(rows, Width);
    auto const query = memory.tile(step, Width), d_out = memory.tile(step, Width);
    seen_query* const seen = reinterpret_cast<seen_query*>(memory.next);
    rounding_loader<N, Width, step> loader(
        width, has_whole_chunks(from.qkv, width) && has_whole_chunks(from.d_mixed, width));
    int const stride = static_cast<int>(from.qkv.stride);
    loader.load(lanes, key, rows,
                successive_heads{from.key(from.qkv, block.token, kv_head), stride, used});
    loader.load(lanes, value, rows,
                successive_heads{from.value(from.qkv, block.token, kv_head), stride, used});

    lamina::tile_sums<Lanes, rows, Width> d_key(lanes, used), d_value(lanes, used);
    int const positions = step / tiling.heads;
    int const end_head = static_cast<int>((kv_head + 1) * tiling.group());
    // At most so many positions from a token on.
    auto const count_from = [&](index_t token) {
      index_t const rest = block.end - token;
      return rest < positions ? static_cast<int>(rest) : positions;
    };
    query_rows const first =
        query_rows_of(tiling, kv_head, 0, block.token, count_from(block.token));
    // The next part of the heads, or the first one further on.
    auto const after = [&](query_rows const& rows_before) {
      query_rows next = first;
      if (rows_before.end_head < end_head) {
        next = rows_before;
        next.first_head += next.heads;
        next.end_head =
            next.first_head + next.heads < end_head ? next.first_head + next.heads : end_head;
      } else {
        next.token = rows_before.token + positions;
        next.count = count_from(next.token);
      }
      return next;
    };
    auto const look_up = [&](query_rows const& own, int r) {
      if (r >= step || !own.holds(r)) return seen_query{};
      index_t const token = own.token_of(r);
      int const head = own.head_of(r);
      return seen_query{from.log_sums(token, head), from.products(token, head),
                        static_cast<int>(token - block.token) + 1};
    };
    query_rows own = first;
    loader.ask(lanes, query_heads{own, from.qkv, static_cast<int>(width)});
    seen_query next_seen = look_up(own, lane);
    while (own.token < block.end) {
      // d_out is read while scores are computed, the next queries while gradients are.
      loader.put(lanes, query, query_heads{own, from.qkv, static_cast<int>(width)}, from.scale());
      query_heads const d_heads{own, from.d_mixed, static_cast<int>(width)};
      loader.ask(lanes, d_heads);
      if (lane < step) seen[lane] = next_seen;
      for (int r = lane + lane_step; r < step; r += lane_step) seen[r] = look_up(own, r);
      lanes.sync();
      lamina::tile_sums<Lanes, rows, step> weight(lanes, used), ds(lanes, used);
      weight.template add_transposed_product<Width>(key, query);
      loader.put(lanes, d_out, d_heads);
      lanes.sync();
      ds.template add_transposed_product<Width>(value, d_out);
      own = after(own);
      if (own.token < block.end) {
        loader.ask(lanes, query_heads{own, from.qkv, static_cast<int>(width)});
        next_seen = look_up(own, lane);
      }
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
      lanes.sync();
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
