// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The global gradient norm over what is trained, the same bits for any number of threads, and the
// scale that clips it.
#pragma once

#include <cmath>
#include <vector>

#include "lamina/backend/backend.hpp"
#include "lamina/core/error.hpp"
#include "lamina/core/parameter.hpp"
#include "lamina/optim/update_row.hpp"

LAMINA_NAMESPACE_BEGIN

/// The L2 norm of several gradients taken as one vector.
struct gradient_norm_result {
  /// Infinite or NaN if an element is, or if a square overflows double.
  double norm = 0;
  /// Elements that are infinite or NaN.
  index_t nonfinite_count = 0;
};

/// Sum of squares of one row of gradients, in double.
///
///   sums[row]              sum over i of rows[row][i]^2
///   nonfinite_counts[row]  number of i with rows[row][i] infinite or NaN
template <storage_scalar T>
struct squared_norm_body {
  vector_view<vector_view<T const> const> rows;
  vector_view<double> sums;
  vector_view<index_t> nonfinite_counts;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    vector_view<T const> const values = rows[row];
    index_t const stride = lanes.count();
    // Eight sums side by side: one alone would wait for its own addition at every element.
    double partial[8] = {};
    index_t i = lanes.lane();
    for (; i + 7 * stride < values.size; i += 8 * stride) {
      for (int k = 0; k < 8; ++k) {
        double const value = widened<double>(values[i + k * stride]);
        partial[k] += value * value;
      }
    }
    for (; i < values.size; i += stride) {
      double const value = widened<double>(values[i]);
      partial[0] += value * value;
    }
    double const own = ((partial[0] + partial[1]) + (partial[2] + partial[3])) +
                       ((partial[4] + partial[5]) + (partial[6] + partial[7]));
    index_t own_nonfinite = 0;
    if (!is_finite(own)) {  // a sum of squares is finite only if every element is
      for (i = lanes.lane(); i < values.size; i += stride) {
        own_nonfinite += is_finite(widened<compute_t<T>>(values[i])) ? 0 : 1;
      }
    }
    double const sum = lanes.sum(own);
    double const nonfinite = lanes.sum(static_cast<double>(own_nonfinite));
    if (lanes.lane() == 0) {
      sums[row] = sum;
      nonfinite_counts[row] = static_cast<index_t>(nonfinite);
    }
  }
};

namespace detail {

// The gradients of a list of parameters cut into rows, with room for one partial result a row.
template <storage_scalar T>
class gradient_norm_pass {
 public:
  gradient_norm_pass() = default;
  explicit gradient_norm_pass(std::vector<parameter_view<T>> const& parameters) {
    for (parameter_view<T> const& parameter : parameters) {
      vector_view<T const> const gradient = parameter.gradient;
      for (index_t first = 0; first < gradient.size; first += elements_per_row) {
        index_t const left = gradient.size - first;
        rows_.push_back(gradient.subview(first, left < elements_per_row ? left : elements_per_row));
      }
    }
    sums_.resize(rows_.size());
    nonfinite_counts_.resize(rows_.size());
  }

  template <tensor_backend Backend>
  gradient_norm_result run(Backend const& backend) {
    backend.executor().run(static_cast<index_t>(rows_.size()),
                           squared_norm_body<T>{rows_, sums_, nonfinite_counts_});
    gradient_norm_result result;
    double total = 0;
    // In index order, whoever computed the parts.
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      total += sums_[row];
      result.nonfinite_count += nonfinite_counts_[row];
    }
    result.norm = std::sqrt(total);
    return result;
  }

 private:
  std::vector<vector_view<T const>> rows_;
  std::vector<double> sums_;
  std::vector<index_t> nonfinite_counts_;
};

}  // namespace detail

/// The L2 norm of all gradients of `parameters` as one vector; parameters without a gradient add
/// nothing. Accumulated in double, row by row of elements_per_row, folded in index order: the
/// result does not depend on how rows are spread over threads.
template <tensor_backend Backend, storage_scalar T>
gradient_norm_result gradient_norm(Backend const& backend,
                                   std::vector<parameter_view<T>> const& parameters) {
  return detail::gradient_norm_pass<T>(parameters).run(backend);
}

/// The factor that brings gradients of the given norm to `max_norm` at most.
///
///   min(1, max_norm / (norm + 1e-6))
///
/// 1 for an infinite max_norm, whatever the norm. Throws config_error unless max_norm > 0.
/// Source: torch.nn.utils.clip_grad_norm_.
constexpr double clip_scale(double norm, double max_norm) {
  if (is_nan(max_norm) || max_norm <= 0) {
    throw_config_error("clip_scale: max_norm is ", max_norm, ", expected > 0 or infinity");
  }
  if (!is_finite(max_norm)) return 1.0;
  double const scale = max_norm / (norm + 1e-6);
  return scale < 1.0 ? scale : 1.0;
}

LAMINA_NAMESPACE_END
