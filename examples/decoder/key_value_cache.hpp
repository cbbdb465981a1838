// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Keys and values of tokens already seen, and the attention of new tokens to them.
#pragma once

#include <algorithm>
#include <vector>

#include "examples/decoder/attention.hpp"
#include "examples/decoder/workspace.hpp"

namespace decoder {

/// The cache of one layer. Keys are kept transposed, as attend() wants them.
///
/// keys    [rows x kv heads x head_width, padded(max_length)]
/// values  [rows x kv heads x max_length, head_width]
template <real T>
struct layer_cache {
  config const* shape;
  index_t max_length;
  matrix_view<T> keys;
  matrix_view<T> values;

  matrix_view<T> row_keys(index_t row, index_t kv_head) const {
    index_t const width = shape->head_width;
    return keys.row_block((row * shape->kv_head_count + kv_head) * width, width);
  }
  matrix_view<T> row_values(index_t row, index_t kv_head) const {
    return values.row_block((row * shape->kv_head_count + kv_head) * max_length, max_length);
  }
};

/// Caches of all layers for `rows` sequences of at most max_length tokens.
template <lamina::tensor_backend Backend>
class key_value_cache {
 public:
  using scalar_type = typename Backend::scalar_type;

  explicit key_value_cache(Backend const& backend) : memory_(backend) {}

  /// Forgets everything and makes room. `shape` must outlive the use of the cache.
  void reset(Backend const& backend, config const& shape, index_t rows, index_t max_length) {
    index_t const heads = rows * shape.kv_head_count;
    memory_.reset(backend,
                  shape.layer_count * heads * shape.head_width * (padded(max_length) + max_length));
    layers_.clear();
    for (index_t layer = 0; layer < shape.layer_count; ++layer) {
      layers_.push_back({&shape, max_length,
                         memory_.take(heads * shape.head_width, padded(max_length)),
                         memory_.take(heads * max_length, shape.head_width)});
    }
  }

  layer_cache<scalar_type> const& layer(index_t index) const {
    return layers_[static_cast<std::size_t>(index)];
  }

  /// Row `to` has seen what row `from` has seen.
  void copy_row(index_t from, index_t to) {
    for (layer_cache<scalar_type> const& cache : layers_) {
      index_t const heads = cache.shape->kv_head_count;
      copy_part(cache.keys, heads * cache.shape->head_width, from, to);
      copy_part(cache.values, heads * cache.max_length, from, to);
    }
  }

 private:
  // Part `from` of `rows` matrix rows over part `to`.
  static void copy_part(matrix_view<scalar_type> whole, index_t rows, index_t from, index_t to) {
    scalar_type const* const source = whole.data + from * rows * whole.stride;
    std::copy(source, source + rows * whole.stride, whole.data + to * rows * whole.stride);
  }

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
      matrix_view<T> const keys = cache.row_keys(added.rows[token], head);
      T* const values = cache.row_values(added.rows[token], head).row(position).data;
      lamina::for_each_element(lanes, 0, width, [=](index_t c) {
        keys(c, position) = key[c];
        values[c] = value[c];
      });
    }
  }
};

/// Attention of new tokens to everything up to themselves in their cache rows. Each row of this
/// body works its share of the tokens with its own scratch.
///
/// mixed    [tokens, query_width]
/// scratch  [attention_worker_count, padded(max_length)]
template <real T>
struct cached_attention {
  layer_cache<T> cache;
  new_tokens added;
  matrix_view<T const> qkv;
  matrix_view<T> mixed;
  matrix_view<T> scratch;

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t worker) const {
    if (lanes.lane() != 0) return;
    config const& shape = *cache.shape;
    index_t const group = shape.head_count / shape.kv_head_count;
    index_t const count = added.rows.size;
    index_t const last = count * (worker + 1) / attention_worker_count;
    for (index_t token = count * worker / attention_worker_count; token < last; ++token) {
      for (index_t head = 0; head < shape.head_count; ++head) {
        index_t const column = head * shape.head_width;
        attend<T>(qkv.row(token).data + column, cache.row_keys(added.rows[token], head / group),
                  cache.row_values(added.rows[token], head / group), added.positions[token] + 1,
                  scratch.row(worker).data, mixed.row(token).data + column);
      }
    }
  }
};

}  // namespace decoder
