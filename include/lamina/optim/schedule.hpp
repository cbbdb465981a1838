// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Learning-rate schedules: values that say the rate of a step, usable in constant expressions.
#pragma once

#include <concepts>
#include <string_view>

#include "lamina/core/error.hpp"
#include "lamina/core/scalar.hpp"

LAMINA_NAMESPACE_BEGIN

/// The learning rate of step `step`, from 0, of `total_steps`.
template <class S>
concept learning_rate_schedule = requires(S const& schedule, index_t step, index_t total_steps) {
  { schedule.learning_rate(step, total_steps) } -> std::same_as<double>;
};

namespace detail {

struct schedule_arguments {
  std::string_view schedule;
  index_t step;
  index_t total_steps;
};

constexpr void check_schedule(schedule_arguments at, double peak, double floor,
                              index_t warmup_steps) {
  if (at.total_steps < 1 || at.step < 0 || at.step >= at.total_steps) {
    throw_config_error(at.schedule, ": step is ", at.step, " of ", at.total_steps,
                       ", expected 0 <= step < total_steps");
  }
  if (!is_finite(peak) || peak < 0) {
    throw_config_error(at.schedule, ": peak is ", peak, ", expected finite and >= 0");
  }
  if (!is_finite(floor) || floor < 0 || floor > peak) {
    throw_config_error(at.schedule, ": floor is ", floor,
                       ", expected 0 <= floor <= peak, which is ", peak);
  }
  if (warmup_steps < 0 || warmup_steps > at.total_steps) {
    throw_config_error(at.schedule, ": warmup_steps is ", warmup_steps, ", expected 0..",
                       at.total_steps, ", the number of steps");
  }
}

// The first step already moves, and step warmup_steps - 1 is the first at the full rate.
constexpr double warmup_factor(index_t step, index_t warmup_steps) noexcept {
  return step < warmup_steps ? static_cast<double>(step + 1) / static_cast<double>(warmup_steps)
                             : 1.0;
}

// (1 + cos(pi x)) / 2 for x in [0, 1], since std::cos is no constant expression: the Taylor series
// of cos on [0, pi/4], error below 1e-16, and half-angle and mirror identities for the rest.
constexpr double half_cosine(double x) noexcept {
  bool const mirrored = x > 0.5;
  double const half_angle = (mirrored ? 1.0 - x : x) * 1.5707963267948966;
  double const square = half_angle * half_angle;
  double term = 1.0, cosine = 1.0;
  for (int n = 1; n <= 8; ++n) {
    term *= -square / ((2.0 * n - 1.0) * (2.0 * n));
    cosine += term;
  }
  double const value = cosine * cosine;  // (1 + cos 2a) / 2 = cos(a)^2
  return mirrored ? 1.0 - value : value;
}

}  // namespace detail

/// The same rate at every step.
struct constant_rate {
  double peak = 1e-3;

  constexpr double learning_rate(index_t step, index_t total_steps) const {
    detail::check_schedule({"constant_rate", step, total_steps}, peak, 0.0, 0);
    return peak;
  }
};

/// peak (step + 1) / warmup_steps during warm-up, then peak.
struct linear_warmup {
  double peak = 1e-3;
  index_t warmup_steps = 0;

  constexpr double learning_rate(index_t step, index_t total_steps) const {
    detail::check_schedule({"linear_warmup", step, total_steps}, peak, 0.0, warmup_steps);
    return peak * detail::warmup_factor(step, warmup_steps);
  }
};

/// Warm-up, then peak, then a straight line over the last part of the run.
///
///   d = decay_fraction total_steps, rounded to the nearest step
///   floor + (peak - floor) (total_steps - step) / d     for the last d steps
///
/// The line starts at peak and would reach floor one step after the last. Throws config_error if
/// warm-up and decay overlap.
struct linear_decay {
  double peak = 1e-3;
  index_t warmup_steps = 0;
  /// Part of the run that decays, 0..1.
  double decay_fraction = 0.2;
  double floor = 0;

  constexpr double learning_rate(index_t step, index_t total_steps) const {
    detail::check_schedule({"linear_decay", step, total_steps}, peak, floor, warmup_steps);
    if (is_nan(decay_fraction) || decay_fraction < 0 || decay_fraction > 1) {
      throw_config_error("linear_decay: decay_fraction is ", decay_fraction, ", expected 0..1");
    }
    index_t const decay_steps =
        static_cast<index_t>(decay_fraction * static_cast<double>(total_steps) + 0.5);
    if (warmup_steps + decay_steps > total_steps) {
      throw_config_error("linear_decay: ", warmup_steps, " steps of warm-up and ", decay_steps,
                         " of decay do not fit into ", total_steps);
    }
    index_t const left = total_steps - step;
    if (left > decay_steps) return peak * detail::warmup_factor(step, warmup_steps);
    return floor + (peak - floor) * (static_cast<double>(left) / static_cast<double>(decay_steps));
  }
};

/// Warm-up, then half a cosine from peak towards floor.
///
///   floor + (peak - floor) (1 + cos(pi (step - warmup_steps) / (total_steps - warmup_steps))) / 2
///
/// Source: Loshchilov and Hutter 2017 (SGDR), eq. 5, without restarts.
struct cosine_decay {
  double peak = 1e-3;
  index_t warmup_steps = 0;
  double floor = 0;

  constexpr double learning_rate(index_t step, index_t total_steps) const {
    detail::check_schedule({"cosine_decay", step, total_steps}, peak, floor, warmup_steps);
    if (step < warmup_steps) return peak * detail::warmup_factor(step, warmup_steps);
    double const progress =
        static_cast<double>(step - warmup_steps) / static_cast<double>(total_steps - warmup_steps);
    return floor + (peak - floor) * detail::half_cosine(progress);
  }
};

static_assert(learning_rate_schedule<constant_rate> && learning_rate_schedule<linear_warmup> &&
              learning_rate_schedule<linear_decay> && learning_rate_schedule<cosine_decay>);

LAMINA_NAMESPACE_END
