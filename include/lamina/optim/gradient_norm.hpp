// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The global gradient norm over what is trained, the same bits for any number of threads, and the
// scale that clips it.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "lamina/backend/backend_vector.hpp"
#include "lamina/core/error.hpp"
#include "lamina/core/parameter.hpp"
#include "lamina/core/row_reduce.hpp"
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

  static constexpr row_schedule schedule = row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    vector_view<T const> const values = rows[row];
    index_t const stride = lanes.count();
    // Eight sums side by side: one alone would wait for its own addition at every element.
    double partial[8] = {};
    index_t i = lanes.lane();
    if constexpr (!std::same_as<Lanes, single_lane>) {
      constexpr index_t count = slot_bytes / static_cast<index_t>(sizeof(T));
      using run = detail::element_run<T, count>;
      index_t const in_runs = run::fits(values.data) ? values.size / count * count : 0;
      for (i *= count; i < in_runs; i += count * stride) {
        run const elements = run::read(values.data + i);
        for (index_t k = 0; k < count; ++k) {
          double const value = widened<double>(elements.values[k]);
          partial[k] += value * value;
        }
      }
      i = in_runs + lanes.lane();
    }
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
    double const sum = lanes.sum(((partial[0] + partial[1]) + (partial[2] + partial[3])) +
                                 ((partial[4] + partial[5]) + (partial[6] + partial[7])));
    double nonfinite = 0;
    if (!is_finite(sum)) {  // a sum of squares is finite only if every element is
      for (i = lanes.lane(); i < values.size; i += stride) {
        nonfinite += is_finite(widened<compute_t<T>>(values[i])) ? 0 : 1;
      }
      nonfinite = lanes.sum(nonfinite);
    }
    if (lanes.lane() == 0) {
      sums[row] = sum;
      nonfinite_counts[row] = static_cast<index_t>(nonfinite);
    }
  }
};

namespace detail {

// The norm from what the rows of a squared_norm_body left; the same in every lane.
template <lane_group Lanes>
LAMINA_HOST_DEVICE gradient_norm_result folded_norm(Lanes lanes, vector_view<double const> sums,
                                                    vector_view<index_t const> nonfinite_counts) {
  using std::sqrt;
  double const total =
      lanes.sum(lane_sum<double>(lanes, 0, sums.size, [&](index_t row) { return sums[row]; }));
  double nonfinite = 0;
  if (!is_finite(total)) {
    nonfinite = lanes.sum(lane_sum<double>(lanes, 0, sums.size, [&](index_t row) {
      return static_cast<double>(nonfinite_counts[row]);
    }));
  }
  return {.norm = sqrt(total), .nonfinite_count = static_cast<index_t>(nonfinite)};
}

// The same for somebody to read.
struct fold_norm_body {
  vector_view<double const> sums;
  vector_view<index_t const> nonfinite_counts;
  vector_view<gradient_norm_result> result;

  static constexpr row_schedule schedule = row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    gradient_norm_result const norm = folded_norm(lanes, sums, nonfinite_counts);
    if (lanes.lane() == 0) result[row] = norm;
  }
};

// The gradients of a list of parameters cut into rows, with room for one partial result a row.
template <tensor_backend Backend, storage_scalar T>
class gradient_rows {
 public:
  gradient_rows(Backend const& backend, std::vector<parameter_view<T>> const& parameters)
      : gradient_rows(backend, cut(parameters)) {}

  /// Asks for the sums of squares of all rows.
  void square(Backend const& backend) {
    backend.executor().run(
        rows_.size(),
        squared_norm_body<T>{std::as_const(rows_).view(), sums_.view(), nonfinite_counts_.view()});
  }
  vector_view<double const> sums() const noexcept { return sums_.view(); }
  vector_view<index_t const> nonfinite_counts() const noexcept { return nonfinite_counts_.view(); }

 private:
  using row_type = vector_view<T const>;

  // Waits: a device takes the rows from memory that goes away.
  gradient_rows(Backend const& backend, std::vector<row_type> const& rows)
      : rows_(backend, static_cast<index_t>(rows.size())),
        sums_(backend, rows_.size()),
        nonfinite_counts_(backend, rows_.size()) {
    copy_elements(backend, rows, rows_.view());
    wait(backend);
  }

  static std::vector<row_type> cut(std::vector<parameter_view<T>> const& parameters) {
    std::vector<row_type> rows;
    for (parameter_view<T> const& parameter : parameters) {
      row_type const gradient = parameter.gradient;
      for (index_t first = 0; first < gradient.size; first += elements_per_row) {
        index_t const left = gradient.size - first;
        rows.push_back(gradient.subview(first, left < elements_per_row ? left : elements_per_row));
      }
    }
    return rows;
  }

  backend_vector<Backend, row_type> rows_;
  backend_vector<Backend, double> sums_;
  backend_vector<Backend, index_t> nonfinite_counts_;
};

}  // namespace detail

/// Measures the gradients of the same parameters again and again.
///
/// Made once, it allocates and, on a device, waits once. run() does neither: the norm is left where
/// result() is, in the backend's memory, for bodies that run later. Accumulated in double, row by
/// row of elements_per_row: the result does not depend on how rows are spread over threads.
template <tensor_backend Backend, storage_scalar T>
class gradient_norm_meter {
 public:
  /// Gradients stay the host's, where they are. Throws device_error if a device cannot use one.
  gradient_norm_meter(Backend const& backend, std::vector<parameter_view<T>> const& parameters)
      : backend_(backend), rows_(checked(backend, parameters)), result_(backend, 1) {}

  void run() {
    rows_.square(backend_);
    backend_.executor().run(
        1, detail::fold_norm_body{rows_.sums(), rows_.nonfinite_counts(), result_.view()});
  }
  /// What the last run found [1].
  vector_view<gradient_norm_result const> result() const noexcept { return result_.view(); }
  /// The same for the host; on a device it waits.
  gradient_norm_result read() const { return read_element(backend_, result(), 0); }

 private:
  static detail::gradient_rows<Backend, T> checked(
      Backend const& backend, std::vector<parameter_view<T>> const& parameters) {
    for (parameter_view<T> const& parameter : parameters) {
      detail::check_reach("gradient_norm", backend, "gradient", parameter.name, parameter.gradient);
    }
    return {backend, parameters};
  }

  Backend backend_;
  detail::gradient_rows<Backend, T> rows_;
  backend_vector<Backend, gradient_norm_result> result_;
};

/// The L2 norm of all gradients of `parameters` as one vector; parameters without a gradient add
/// nothing. As gradient_norm_meter measures it; on a device it waits.
template <tensor_backend Backend, storage_scalar T>
gradient_norm_result gradient_norm(Backend const& backend,
                                   std::vector<parameter_view<T>> const& parameters) {
  gradient_norm_meter<Backend, T> meter(backend, parameters);
  meter.run();
  return meter.read();
}

namespace detail {
LAMINA_HOST_DEVICE constexpr double clip_scale(double norm, double max_norm) noexcept {
  if (!is_finite(max_norm)) return 1.0;
  double const scale = max_norm / (norm + 1e-6);
  return scale < 1.0 ? scale : 1.0;
}
}  // namespace detail

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
  return detail::clip_scale(norm, max_norm);
}

LAMINA_NAMESPACE_END
