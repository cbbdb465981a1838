// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Which tiles a model attends by on a device: rounded ones where its other products round their
// factors too.
#pragma once

#include <type_traits>

#include "examples/decoder/device/narrow_attention.hpp"
#include "examples/decoder/widening.hpp"

namespace decoder {

/// The attention of a model over `Backend` with weights stored as `Weight`.
template <lamina::device_backend Backend, class Weight>
struct device_attention {
  using T = typename Backend::scalar_type;

  /// Whether tiles are rounded to Weight. The sums of wider heads would not fit in registers.
  static bool rounds(config const& shape) {
    return narrow_products<Backend, Weight> && shape.head_width <= 128;
  }
  /// Of the blocks of queries.
  static attention_tiling tiling(config const& shape) {
    return rounds(shape) ? attention_tiling::with_rows(shape, attention_tiling::narrow_queries)
                         : attention_tiling::of<T>(shape);
  }

  /// See attention_arguments; the tiling is tiling(shape).
  static void forward(Backend const& backend, attention_arguments<T> const& of) {
    choose(
        of.tiling.width, [&](auto width) { run(backend, narrow_attention<Weight, width>{of}); },
        [&] { run(backend, tiled_attention<T>{of}); });
  }

  /// See attention_gradients, whose tiling is tiling(shape).
  ///
  /// queries  blocks of at most tiling(shape).positions() positions
  /// keys     blocks of at most as many positions as tiles of keys have rows
  static void backward(Backend const& backend, config const& shape,
                       attention_gradients<T> const& from,
                       vector_view<attention_block const> queries,
                       vector_view<attention_block const> keys) {
    choose(
        shape.head_width,
        [&](auto width) {
          run(backend, narrow_query_gradients<Weight, width>{from, queries});
          attention_gradients<T> by_key = from;
          by_key.tiling = attention_tiling::with_rows(shape, narrow_step<width>);
          run(backend, narrow_key_value_gradients<Weight, width>{by_key, keys});
        },
        [&] {
          run(backend, query_gradients<T>{from, queries});
          run(backend, key_value_gradients<T>{from, keys});
        });
  }

 private:
  template <class Rounded, class Full>
  static void choose(index_t width, Rounded const& rounded, Full const& full) {
    if constexpr (narrow_products<Backend, Weight>) {
      if (width <= 64) return rounded(std::integral_constant<int, 64>{});
      if (width <= 128) return rounded(std::integral_constant<int, 128>{});
    }
    full();
  }
  template <class Body>
  static void run(Backend const& backend, Body const& body) {
    backend.executor().run(body.row_count(), body);
  }
};

}  // namespace decoder
