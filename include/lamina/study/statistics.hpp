// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The statistics a study needs: spread and errors of few samples, bootstrap intervals, ranks and
// correlations.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "lamina/core/error.hpp"
#include "lamina/core/random.hpp"
#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"

LAMINA_NAMESPACE_BEGIN

/// What a statistic is where it is not defined.
inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// A range that covers an unknown value with some confidence; NaN ends where there is none.
struct interval {
  double low = not_a_number;
  double high = not_a_number;
};

/// The mean; NaN of nothing.
inline double mean(vector_view<double const> values) {
  double total = 0;
  for (double value : values) total += value;
  return values.empty() ? not_a_number : total / static_cast<double>(values.size);
}

/// The variance with n - 1; NaN of fewer than two values.
inline double sample_variance(vector_view<double const> values) {
  if (values.size < 2) return not_a_number;
  double const centre = mean(values);
  double total = 0;
  for (double value : values) total += (value - centre) * (value - centre);
  return total / static_cast<double>(values.size - 1);
}

/// The standard deviation with n - 1; NaN of fewer than two values.
inline double sample_deviation(vector_view<double const> values) {
  return std::sqrt(sample_variance(values));
}

/// The standard error of the mean, s / sqrt(n); NaN of fewer than two values.
inline double standard_error(vector_view<double const> values) {
  return std::sqrt(sample_variance(values) / static_cast<double>(values.size));
}

/// The quantile of ascending values, linear between order statistics (type 7 of Hyndman and Fan
/// 1996, the default of R and NumPy); NaN of nothing. Throws config_error unless
/// 0 <= probability <= 1.
inline double quantile(vector_view<double const> ascending, double probability) {
  if (!(probability >= 0 && probability <= 1)) {
    throw_config_error("quantile: probability is ", probability, ", expected 0..1");
  }
  if (ascending.empty()) return not_a_number;
  double const position = probability * static_cast<double>(ascending.size - 1);
  index_t const below = static_cast<index_t>(position);
  index_t const above = below + 1 < ascending.size ? below + 1 : below;
  double const share = position - static_cast<double>(below);
  return ascending[below] + share * (ascending[above] - ascending[below]);
}

/// Ranks from 1, ties share the mean of their ranks. Throws config_error on NaN, which has no rank.
inline std::vector<double> average_ranks(vector_view<double const> values) {
  std::vector<double> ranks;
  ranks.reserve(static_cast<std::size_t>(values.size));
  for (index_t i = 0; i < values.size; ++i) {
    if (is_nan(values[i])) throw_config_error("average_ranks: value ", i, " is NaN");
    index_t less = 0, equal = 0;  // by counting: profiles are short
    for (double other : values) {
      less += other < values[i] ? 1 : 0;
      equal += other == values[i] ? 1 : 0;
    }
    ranks.push_back(static_cast<double>(less) + static_cast<double>(equal + 1) / 2);
  }
  return ranks;
}

/// Pearson's correlation; NaN of fewer than two pairs, of a constant side, or if any value is NaN.
/// Throws shape_error if the sizes differ.
inline double pearson(vector_view<double const> x, vector_view<double const> y) {
  if (x.size != y.size) {
    throw_shape_error("pearson: x has ", x.size, " values, y has ", y.size);
  }
  double const mean_x = mean(x);
  double const mean_y = mean(y);
  double xx = 0, yy = 0, xy = 0;
  bool constant_x = true, constant_y = true;  // rounding of the mean would hide it in xx and yy
  for (index_t i = 0; i < x.size; ++i) {
    constant_x = constant_x && x[i] == x[0];
    constant_y = constant_y && y[i] == y[0];
    double const dx = x[i] - mean_x;
    double const dy = y[i] - mean_y;
    xx += dx * dx;
    yy += dy * dy;
    xy += dx * dy;
  }
  double const scale = std::sqrt(xx) * std::sqrt(yy);
  if (constant_x || constant_y || !(scale > 0)) return not_a_number;
  double const correlation = xy / scale;
  return correlation > 1 ? 1 : correlation < -1 ? -1 : correlation;
}

/// Spearman's rank correlation: Pearson's on average ranks, so ties are right; NaN of fewer than
/// two pairs or of a constant side. Throws shape_error if the sizes differ, config_error on NaN.
inline double spearman(vector_view<double const> x, vector_view<double const> y) {
  if (x.size != y.size) {
    throw_shape_error("spearman: x has ", x.size, " values, y has ", y.size);
  }
  return pearson(average_ranks(x), average_ranks(y));
}

namespace detail {

// The argument where an increasing function reaches `target`, between low and high.
template <class Function>
double bisect(Function const& function, double target, double low, double high) {
  for (int step = 0; step < 200; ++step) {
    double const middle = low + (high - low) / 2;
    if (middle == low || middle == high) break;
    (function(middle) < target ? low : high) = middle;
  }
  return low + (high - low) / 2;
}

// P(|t| < sqrt(dof) tan(angle)) for Student's t. Source: Abramowitz and Stegun 26.7.3, 26.7.4.
inline double central_t_probability(double angle, index_t dof) {
  double const cosine = std::cos(angle);
  double const sine = std::sin(angle);
  bool const odd = dof % 2 != 0;
  double term = odd ? cosine : 1;
  double total = dof == 1 ? 0 : term;
  for (index_t k = odd ? 3 : 2; k < dof; k += 2) {
    term *= cosine * cosine * static_cast<double>(k - 1) / static_cast<double>(k);
    total += term;
  }
  return odd ? 2 / 3.14159265358979323846 * (angle + sine * total) : sine * total;
}

inline void check_probability(char const* what, double probability) {
  if (!(probability > 0 && probability < 1)) {
    throw_config_error(what, " is ", probability, ", expected more than 0 and less than 1");
  }
}

}  // namespace detail

/// The value a standard normal variable stays below with the given probability in (0, 1).
/// Throws config_error outside it.
inline double normal_quantile(double probability) {
  detail::check_probability("normal_quantile: probability", probability);
  if (probability > 0.5) return -normal_quantile(1 - probability);
  return detail::bisect([](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }, probability,
                        -40, 0);
}

/// The value Student's t stays below with the given probability in (0, 1). Throws config_error
/// outside it or if degrees_of_freedom < 1.
inline double student_t_quantile(double probability, index_t degrees_of_freedom) {
  detail::check_probability("student_t_quantile: probability", probability);
  if (degrees_of_freedom < 1) {
    throw_config_error("student_t_quantile: degrees_of_freedom is ", degrees_of_freedom,
                       ", expected at least 1");
  }
  if (probability < 0.5) return -student_t_quantile(1 - probability, degrees_of_freedom);
  double const angle =
      detail::bisect([&](double x) { return detail::central_t_probability(x, degrees_of_freedom); },
                     2 * probability - 1, 0, 3.14159265358979323846 / 2);
  return std::sqrt(static_cast<double>(degrees_of_freedom)) * std::tan(angle);
}

/// How a bootstrap interval is made.
struct bootstrap_options {
  double confidence = 0.95;
  index_t resamples = 2000;
  std::uint64_t seed = 1;
};

/// The mean of as many draws with replacement as there are values; NaN of nothing.
inline double resampled_mean(vector_view<double const> values, counter_generator& generator) {
  double total = 0;
  for (index_t i = 0; i < values.size; ++i) {
    total += values[generator.below(static_cast<std::uint32_t>(values.size))];
  }
  return values.empty() ? not_a_number : total / static_cast<double>(values.size);
}

/// A bootstrap interval around an estimate, the same for the same seed: percentiles of
/// statistic(r) over the resamples r = 0, 1, ..., their distance from the estimate widened for
/// small samples by
///
///   t(sample_count - 1) / z * sqrt(sample_count / (sample_count - 1))
///
/// Plain percentiles are too narrow for few samples (of three normal values they cover 75 % where
/// 95 % is asked); the factor gives a resampled mean the width of Student's interval.
///
/// statistic     draws one resample from generators of its own and returns the estimate on it;
///               for a hierarchical resample it draws groups first and members of each then. A
///               result that is NaN is left out.
/// sample_count  independent units at the outermost level; with fewer than 2 there is no interval
///               and both ends are NaN
/// Throws config_error unless 0 < confidence < 1 and resamples >= 1.
/// Source: Efron and Tibshirani 1993, chapter 13; for the factor Hesterberg 2015, "What teachers
/// should know about the bootstrap" (expanded percentiles), here applied to the width instead of
/// the level because the level saturates at the extremes of a handful of values.
template <class Statistic>
interval bootstrap_interval(double estimate, index_t sample_count, Statistic const& statistic,
                            bootstrap_options const& options = {}) {
  detail::check_probability("bootstrap_interval: confidence", options.confidence);
  if (options.resamples < 1) {
    throw_config_error("bootstrap_interval: resamples is ", options.resamples,
                       ", expected at least 1");
  }
  if (sample_count < 2) return {};
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(options.resamples));
  for (index_t resample = 0; resample < options.resamples; ++resample) {
    double const value = statistic(resample);
    if (!is_nan(value)) values.push_back(value);
  }
  std::sort(values.begin(), values.end());
  double const tail = (1 - options.confidence) / 2;
  double const count = static_cast<double>(sample_count);
  double const widening = student_t_quantile(1 - tail, sample_count - 1) /
                          normal_quantile(1 - tail) * std::sqrt(count / (count - 1));
  return {estimate + widening * (quantile(values, tail) - estimate),
          estimate + widening * (quantile(values, 1 - tail) - estimate)};
}

LAMINA_NAMESPACE_END
