// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The gated activation of the feed-forward branch, forward and backward.
#pragma once

#include "examples/decoder/rows.hpp"
#include "lamina/core/math.hpp"

namespace decoder {

/// a = silu(g) u, with silu(g) = g / (1 + e^-g).
///
/// gate_up    [tokens, 2 ffn_width]  g, then u
/// activated  [tokens, ffn_width]    rounded where it is stored narrower
/// Source: Shazeer 2020, "GLU variants improve transformer", eq. 5.
template <real T, class Out = T>
struct swiglu {
  matrix_view<T const> gate_up;
  matrix_view<Out> activated;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const width = activated.cols;
    T const* const gate = gate_up.row(row).data;
    T const* const up = gate + width;
    Out* const a = activated.row(row).data;
    for_each_run<4>(lanes, width, fit_runs(gate, up, a), [=](auto n, index_t c) {
      auto const g = read_run(n, gate + c), u = read_run(n, up + c);
      run<Out, n.value> out;
      for (int k = 0; k < n.value; ++k) {
        out[k] = lamina::stored<Out>(g[k] / (T(1) + lamina::row_exp(-g[k])) * u[k]);
      }
      out.write(a + c);
    });
  }
};

/// d_gate_up from d_activated:
///
///   du = da silu(g),  dg = da u s (1 + g (1 - s))  with s = 1 / (1 + e^-g)
template <real T, class Out = T>
struct swiglu_backward {
  matrix_view<T const> gate_up;
  matrix_view<T const> d_activated;
  matrix_view<Out> d_gate_up;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const width = d_activated.cols;
    T const* const gate = gate_up.row(row).data;
    T const* const up = gate + width;
    T const* const da = d_activated.row(row).data;
    Out* const d_gate = d_gate_up.row(row).data;
    Out* const d_up = d_gate + width;
    bool const fit = fit_runs(gate, up, da, d_gate, d_up);
    for_each_run<4>(lanes, width, fit, [=](auto n, index_t c) {
      auto const g = read_run(n, gate + c), u = read_run(n, up + c), d = read_run(n, da + c);
      run<Out, n.value> dg, du;
      for (int k = 0; k < n.value; ++k) {
        T const s = T(1) / (T(1) + lamina::row_exp(-g[k]));
        du[k] = lamina::stored<Out>(d[k] * g[k] * s);
        dg[k] = lamina::stored<Out>(d[k] * u[k] * s * (T(1) + g[k] * (T(1) - s)));
      }
      du.write(d_up + c);
      dg.write(d_gate + c);
    });
  }
};

}  // namespace decoder
