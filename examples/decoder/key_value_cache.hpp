// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Keys and values of tokens already seen, and the attention of new tokens to them.
#pragma once

#include <algorithm>
#include <vector>

#include "examples/decoder/attention.hpp"
#include "examples/decoder/workspace.hpp"

namespace decoder {

/// The cache of one layer: for every sequence and kv head, keys and values as attend() wants them.
///
/// keys    [rows x kv heads, head_columns of max_length positions]
/// values  [rows x kv heads, head_rows of max_length positions]
template <real T>
struct layer_cache {
  config const* shape;
  matrix_view<T> keys;
  matrix_view<T> values;

  static index_t keys_size(config const& shape, index_t max_length) {
    return round_up(max_length, tile_cols<T>) * shape.head_width;
  }
  static index_t values_size(config const& shape, index_t max_length) {
    return max_length * padded_width<T>(shape.head_width);
  }
  column_pieces<T> row_keys(index_t row, index_t kv_head) const {
    return head_columns(keys.row(row * shape->kv_head_count + kv_head).data, shape->head_width);
  }
  column_pieces<T> row_values(index_t row, index_t kv_head) const {
    return head_rows(values.row(row * shape->kv_head_count + kv_head).data, shape->head_width);
  }
};

/// Caches of all layers for `rows` sequences of at most max_length tokens.
template <lamina::host_backend Backend>
class key_value_cache {
 public:
  using scalar_type = typename Backend::scalar_type;

  explicit key_value_cache(Backend const& backend) : memory_(backend) {}

  /// Forgets everything and makes room. `shape` must outlive the use of the cache.
  void reset(Backend const& backend, config const& shape, index_t rows, index_t max_length) {
    using cache = layer_cache<scalar_type>;
    index_t const heads = rows * shape.kv_head_count;
    index_t const keys = cache::keys_size(shape, max_length);
    index_t const values = cache::values_size(shape, max_length);
    memory_.reset(backend, shape.layer_count * heads * (keys + values));
    layers_.clear();
    for (index_t layer = 0; layer < shape.layer_count; ++layer) {
      layers_.push_back({&shape, memory_.take(heads, keys), memory_.take(heads, values)});
    }
  }

  layer_cache<scalar_type> const& layer(index_t index) const {
    return layers_[static_cast<std::size_t>(index)];
  }

  /// Row `to` has seen the first `length` tokens of row `from`.
  void copy_row(index_t from, index_t to, index_t length) {
    for (layer_cache<scalar_type> const& cache : layers_) {
      index_t const heads = cache.shape->kv_head_count;
      index_t const keys = cache.keys_size(*cache.shape, length);
      index_t const values = cache.values_size(*cache.shape, length);
      for (index_t head = 0; head < heads; ++head) {
        std::copy_n(cache.row_keys(from, head).data, keys, cache.row_keys(to, head).data);
        std::copy_n(cache.row_values(from, head).data, values, cache.row_values(to, head).data);
      }
    }
  }

 private:
  arena<Backend> memory_;
  std::vector<layer_cache<scalar_type>> layers_;
};

/// Tokens that are new to the cache.
///
/// rows       [tokens]  the cache row of each
/// positions  [tokens]  its place there
struct new_tokens {
  vector_view<index_t const> rows;
  vector_view<index_t const> positions;
};

/// Writes the keys and values of a new token to its place.
template <real T>
struct store_heads {
  layer_cache<T> cache;
  new_tokens added;
  matrix_view<T const> qkv;

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t token) const {
    config const& shape = *cache.shape;
    index_t const width = shape.head_width, position = added.positions[token];
    for (index_t head = 0; head < shape.kv_head_count; ++head) {
      T const* const key = qkv.row(token).data + shape.query_width() + head * width;
      T const* const value = key + shape.key_width();
      index_t const row = added.rows[token];
      column_pieces<T> const values = cache.row_values(row, head);
      if (lanes.lane() != 0) continue;
      place_column(key, width, position, cache.row_keys(row, head));
      place_row(value, width, T(1), values.data + position * values.row);
    }
  }
};

/// Attention of new tokens to everything up to themselves in their cache rows. Each row of this
/// body works its share of the tokens with its own scratch; successive tokens of a sequence are
/// worked together.
///
/// mixed    [tokens, query_width]
/// scratch  [attention_worker_count, scratch_size(...)]
template <real T>
struct cached_attention {
  layer_cache<T> cache;
  new_tokens added;
  matrix_view<T const> qkv;
  matrix_view<T> mixed;
  matrix_view<T> scratch;

  static index_t scratch_size(config const& shape, index_t max_length) {
    return attend_scratch_size<T>(shape.head_width, shape.head_count / shape.kv_head_count,
                                  max_length);
  }

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t worker) const {
    if (lanes.lane() != 0) return;
    index_t const count = added.rows.size;
    index_t const last = count * (worker + 1) / attention_worker_count;
    index_t token = count * worker / attention_worker_count;
    while (token < last) {
      index_t const size = run_length(token, last);
      attend_together(token, size, scratch.row(worker).data);
      token += size;
    }
  }

 private:
  // Tokens from `token` on that follow each other in one sequence, at most a block of them.
  index_t run_length(index_t token, index_t last) const {
    config const& shape = *cache.shape;
    index_t const most = block_positions(shape.head_count / shape.kv_head_count);
    index_t size = 1;
    while (size < most && token + size < last && added.rows[token + size] == added.rows[token] &&
           added.positions[token + size] == added.positions[token] + size) {
      ++size;
    }
    return size;
  }

  void attend_together(index_t token, index_t size, T* memory) const {
    config const& shape = *cache.shape;
    index_t const group = shape.head_count / shape.kv_head_count, width = shape.head_width;
    index_t const row = added.rows[token], first = added.positions[token];
    for (index_t head = 0; head < shape.kv_head_count; ++head) {
      index_t const column = head * group * width;
      head_block<T const> const queries{
          {qkv.row(token).data + column, size, group * width, qkv.stride}, first, group};
      head_block<T> const out{
          {mixed.row(token).data + column, size, group * width, mixed.stride}, first, group};
      attend<T>(queries, cache.row_keys(row, head), cache.row_values(row, head), memory, out, {});
    }
  }
};

}  // namespace decoder
