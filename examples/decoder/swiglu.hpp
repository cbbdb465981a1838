// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The gated activation of the feed-forward branch, forward and backward.
#pragma once

#include "examples/decoder/rows.hpp"
#include "lamina/core/math.hpp"

namespace decoder {

/// a = silu(g) u, with silu(g) = g / (1 + e^-g).
///
/// gate_up    [tokens, 2 ffn_width]  g, then u
/// activated  [tokens, ffn_width]
/// Source: Shazeer 2020, "GLU variants improve transformer", eq. 5.
template <real T>
struct swiglu {
  matrix_view<T const> gate_up;
  matrix_view<T> activated;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const width = activated.cols;
    T const* const gate = gate_up.row(row).data;
    T const* const up = gate + width;
    T* const a = activated.row(row).data;
    lamina::for_each_element(lanes, 0, width, [=](index_t c) {
      a[c] = gate[c] / (T(1) + lamina::row_exp(-gate[c])) * up[c];
    });
  }
};

/// d_gate_up from d_activated:
///
///   du = da silu(g),  dg = da u s (1 + g (1 - s))  with s = 1 / (1 + e^-g)
template <real T>
struct swiglu_backward {
  matrix_view<T const> gate_up;
  matrix_view<T const> d_activated;
  matrix_view<T> d_gate_up;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const width = d_activated.cols;
    T const* const gate = gate_up.row(row).data;
    T const* const up = gate + width;
    T const* const da = d_activated.row(row).data;
    T* const d_gate = d_gate_up.row(row).data;
    T* const d_up = d_gate + width;
    lamina::for_each_element(lanes, 0, width, [=](index_t c) {
      T const g = gate[c];
      T const s = T(1) / (T(1) + lamina::row_exp(-g));
      d_up[c] = da[c] * g * s;
      d_gate[c] = da[c] * up[c] * s * (T(1) + g * (T(1) - s));
    });
  }
};

}  // namespace decoder
