// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A step of an optimizer after its gradients have been squared, as bodies: what it comes to, and
// its rows unless it is skipped. Nothing in between is decided by the host.
#pragma once

#include "lamina/optim/gradient_norm.hpp"

LAMINA_NAMESPACE_BEGIN

/// What one step did.
struct step_status {
  /// The base learning rate of this step, before the per-layer multipliers.
  double learning_rate = 0;
  /// Global L2 norm of the trained gradients, before clipping.
  double gradient_norm = 0;
  /// What the gradients were multiplied with; 1 where nothing was clipped or the step was skipped.
  double clip_scale = 1;
  /// Gradient elements that are infinite or NaN.
  index_t nonfinite_count = 0;
  /// The norm is not finite, or a learning rate that was read on a device makes no sense: weights
  /// and state are as they were, bit for bit.
  bool skipped = false;
};

namespace detail {

// What a step needs to know of a parameter besides its memory.
struct trained_parameter {
  double rate = 1;  // multiplier of the learning rate
  bool decays = true;
};

// One row: folds the norm, decides whether to skip, counts the step of every parameter and prepares
// its coefficients.
template <class Rule, real S>
struct plan_step_body {
  using coefficient_type = typename Rule::template coefficients<S>;

  vector_view<double const> sums;  // as squared_norm_body left them
  vector_view<index_t const> nonfinite_counts;
  vector_view<typename Rule::options_type const> options;  // [1]
  vector_view<trained_parameter const> parameters;
  vector_view<double const> learning_rates;  // [1], or empty: `learning_rate` is the one
  double learning_rate;
  double greatest_rate;                        // of all parameters
  vector_view<index_t> step_counts;            // [parameters]
  vector_view<coefficient_type> coefficients;  // [parameters]
  vector_view<step_status> status;             // [1]

  static constexpr row_schedule schedule = row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t) const {
    gradient_norm_result const gradient = folded_norm(lanes, sums, nonfinite_counts);
    double const rate = learning_rates.empty() ? learning_rate : learning_rates[0];
    bool const skipped =
        !is_finite(gradient.norm) || !(rate >= 0) || !is_finite(rate * greatest_rate);
    if (lanes.lane() == 0) {
      status[0] = {.learning_rate = rate,
                   .gradient_norm = gradient.norm,
                   .clip_scale = skipped ? 1.0 : clip_scale(gradient.norm, options[0].clip_norm),
                   .nonfinite_count = gradient.nonfinite_count,
                   .skipped = skipped};
    }
    if (skipped) return;
    for (index_t p = lanes.lane(); p < parameters.size; p += lanes.count()) {
      coefficients[p] = Rule::template prepare<S>(options[0], rate * parameters[p].rate,
                                                  ++step_counts[p], parameters[p].decays);
    }
  }
};

// A row of Body, unless the step is skipped.
template <class Rule, storage_scalar T, real S>
struct apply_step_body {
  vector_view<update_row<T, S> const> rows;
  vector_view<typename Rule::template coefficients<S> const> coefficients;
  vector_view<step_status const> status;  // [1]

  static constexpr row_schedule schedule = row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (status[0].skipped) return;
    using body = typename Rule::template body<T, S>;
    body{rows, coefficients, static_cast<S>(status[0].clip_scale)}(lanes, row);
  }
};

}  // namespace detail

LAMINA_NAMESPACE_END
