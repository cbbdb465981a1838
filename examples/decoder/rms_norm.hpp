// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Root-mean-square normalisation of rows, forward and backward.
#pragma once

#include <cmath>

#include "examples/decoder/rows.hpp"

namespace decoder {

/// y = w x / rms(x), with rms(x) = sqrt(mean(x^2) + epsilon).
///
/// input        [rows, width]
/// weight       [width]
/// output       [rows, width]  may be input; rounded where it is stored narrower
/// kept         [rows, width]  a copy of input for the backward pass, or empty
/// inverse_rms  [rows]         1 / rms(x) for the backward pass, or empty
/// Source: Zhang and Sennrich 2019, "Root mean square layer normalization", eq. 4.
template <real T, class Out = T>
struct rms_norm {
  matrix_view<T const> input;
  vector_view<T const> weight;
  T epsilon;
  matrix_view<Out> output;
  matrix_view<T> kept;
  vector_view<T> inverse_rms;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const width = input.cols;
    T const* const x = input.row(row).data;
    T const* const w = weight.data;
    Out* const y = output.row(row).data;
    T* const copy = kept.data != nullptr ? kept.row(row).data : nullptr;
    bool const fit = fit_runs(x, w, y, copy);
    T const square = lanes.sum(lane_sum_of_runs<4, T>(lanes, width, fit, [=](auto n, index_t c) {
      auto const own = read_run(n, x + c);
      T sum = T(0);
      for (int k = 0; k < n.value; ++k) sum += own[k] * own[k];
      return sum;
    }));
    T const inverse = T(1) / std::sqrt(square / static_cast<T>(width) + epsilon);
    if (!inverse_rms.empty() && lanes.lane() == 0) inverse_rms[row] = inverse;
    for_each_run<4>(lanes, width, fit, [=](auto n, index_t c) {
      auto own = read_run(n, x + c);
      if (copy != nullptr) own.write(copy + c);
      auto const weights = read_run(n, w + c);
      run<Out, n.value> out;
      for (int k = 0; k < n.value; ++k) out[k] = lamina::stored<Out>(own[k] * inverse * weights[k]);
      out.write(y + c);
    });
  }
};

/// d_input += d loss / d x for y = w x / rms(x):
///
///   dx = w dy / rms - x mean(w dy x) / rms^3
///
/// target  [rows]  the row of d_input that belongs to each row; empty if they are the same
template <real T>
struct rms_norm_backward {
  matrix_view<T const> input;
  vector_view<T const> weight;
  vector_view<T const> inverse_rms;
  matrix_view<T const> d_output;
  matrix_view<T> d_input;
  vector_view<index_t const> target;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const width = input.cols;
    T const* const x = input.row(row).data;
    T const* const w = weight.data;
    T const* const dy = d_output.row(row).data;
    T* const dx = d_input.row(target.empty() ? row : target[row]).data;
    T const inverse = inverse_rms[row];
    bool const fit = fit_runs(x, w, dy, dx);
    T const product = lanes.sum(lane_sum_of_runs<4, T>(lanes, width, fit, [=](auto n, index_t c) {
      auto const own = read_run(n, x + c), weights = read_run(n, w + c), d = read_run(n, dy + c);
      T sum = T(0);
      for (int k = 0; k < n.value; ++k) sum += weights[k] * d[k] * own[k];
      return sum;
    }));
    T const shrink = product * inverse * inverse * inverse / static_cast<T>(width);
    for_each_run<4>(lanes, width, fit, [=](auto n, index_t c) {
      auto const own = read_run(n, x + c), weights = read_run(n, w + c), d = read_run(n, dy + c);
      auto sum = read_run(n, dx + c);
      for (int k = 0; k < n.value; ++k) sum[k] += weights[k] * d[k] * inverse - own[k] * shrink;
      sum.write(dx + c);
    });
  }
};

/// Gradient of the weight: dw[c] = sum over rows of dy[row, c] x[row, c] / rms. Run over column
/// blocks.
template <real T, index_t Columns>
struct rms_norm_weight_gradient {
  matrix_view<T const> input;
  vector_view<T const> inverse_rms;
  matrix_view<T const> d_output;
  vector_view<T> d_weight;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t block) const {
    sum_column_block<Columns, T>(lanes, block, input.rows, d_weight, [this](index_t r, index_t c) {
      return d_output(r, c) * input(r, c) * inverse_rms[r];
    });
  }
};

}  // namespace decoder
