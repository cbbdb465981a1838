// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Layer contribution as a measurement: C = (S - S_base) / (S_full - S_base) with its error, refused
// where the gain of full training is within noise.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "lamina/io/record.hpp"
#include "lamina/study/statistics.hpp"

LAMINA_NAMESPACE_BEGIN

/// Scores of one variant: [bases][seeds]. The i-th seed is the same for all variants; a variant may
/// have more seeds than another.
using score_table = std::vector<std::vector<double>>;

/// How contributions are estimated.
struct contribution_options {
  bootstrap_options bootstrap{};
  /// The gain of full training must exceed this many of its standard errors. 3 keeps the error that
  /// S_full brings into every C at once below a third of C.
  double noise_multiple = 3;
  /// Standard error of the score of an untrained base that was scored once; 0 where scores are
  /// exact. Bases scored at least twice carry their own error.
  double base_score_error = 0;
};

/// What one variant contributed. Fields that could not be measured are NaN.
struct contribution {
  /// S: mean over seeds, then over bases, and its standard error.
  double score = not_a_number;
  double score_error = not_a_number;
  /// C: the ratio of means over seeds; with several bases the mean of their ratios.
  double value = not_a_number;
  /// One base: by the delta method, the noise of S_full and S_base included. Several: over bases.
  double standard_error = not_a_number;
  /// Bootstrap over bases and the seeds in them, widened for small samples (bootstrap_interval).
  interval confidence{};
  /// C on each base.
  std::vector<double> by_base;
};

namespace detail {

// Squared standard error of a mean over seeds: `once` (NaN: unknown) where there is one seed only.
inline double squared_error(std::vector<double> const& scores, double once) {
  return scores.size() > 1 ? sample_variance(scores) / static_cast<double>(scores.size()) : once;
}

inline void check_scores(char const* what, score_table const& scores, std::size_t base_count) {
  if (scores.size() != base_count) {
    throw_shape_error("contribution_scale: ", what, " has scores for ", scores.size(),
                      " bases, expected ", base_count);
  }
  for (std::size_t base = 0; base < base_count; ++base) {
    if (scores[base].empty()) {
      throw_shape_error("contribution_scale: ", what, " has no score on base ", base);
    }
    for (double score : scores[base]) {
      if (!is_finite(score)) {
        throw_config_error("contribution_scale: ", what, " has score ", score, " on base ", base,
                           ", expected a finite number");
      }
    }
  }
}

// Mean over bases of the means over seeds, and its standard error: over bases where there are
// several, otherwise over seeds.
inline std::pair<double, double> mean_over_bases(score_table const& scores, double once) {
  std::vector<double> means;
  for (auto const& seeds : scores) means.push_back(mean(seeds));
  if (means.size() > 1) return {mean(means), standard_error(means)};
  return {mean(means), std::sqrt(squared_error(scores[0], once))};
}

}  // namespace detail

/// The scale contributions are read on: 0 at S_base, 1 at S_full, on every base.
///
/// Not measurable, with the reason in refusal(), if on any base S_full - S_base is not positive or
/// within its noise; C is then NaN for every variant. With one seed of full training on one base
/// the noise is unknown: C is given, but it has neither error nor interval.
class contribution_scale {
 public:
  /// base  scores of the untrained model, usually one a base
  /// full  scores after full training, one a seed; more seeds here help every C
  /// Throws shape_error if a base has no scores, config_error for a score that is not finite or
  /// options outside their range.
  contribution_scale(score_table base, score_table full, contribution_options options = {})
      : base_(std::move(base)), full_(std::move(full)), options_(options) {
    if (base_.empty()) throw_shape_error("contribution_scale: base has no scores");
    detail::check_scores("base", base_, base_.size());
    detail::check_scores("full", full_, base_.size());
    if (!(options_.noise_multiple >= 0) || !(options_.base_score_error >= 0)) {
      throw_config_error("contribution_scale: noise_multiple is ", options_.noise_multiple,
                         " and base_score_error is ", options_.base_score_error,
                         ", expected neither to be negative");
    }
    double const base_once = options_.base_score_error * options_.base_score_error;
    std::tie(base_score_, base_score_error_) = detail::mean_over_bases(base_, base_once);
    std::tie(full_score_, full_score_error_) = detail::mean_over_bases(full_, not_a_number);
    std::vector<double> gains;
    for (std::size_t b = 0; b < base_.size(); ++b) {
      gains.push_back(mean(full_[b]) - mean(base_[b]));
      double const error = std::sqrt(detail::squared_error(full_[b], not_a_number) +
                                     detail::squared_error(base_[b], base_once));
      refuse_within_noise(base_.size() > 1 ? detail::join("base ", b, ": ") : std::string(),
                          mean(base_[b]), mean(full_[b]), error);
      gain_error_ = error;
    }
    gain_ = mean(gains);
    if (gains.size() > 1) gain_error_ = lamina::standard_error(gains);
  }

  /// Whether C can be given at all.
  bool measurable() const noexcept { return refusal_.empty(); }
  /// Why not, with the numbers; empty if measurable.
  std::string const& refusal() const noexcept { return refusal_; }

  index_t base_count() const noexcept { return static_cast<index_t>(base_.size()); }
  double base_score() const noexcept { return base_score_; }
  double base_score_error() const noexcept { return base_score_error_; }
  double full_score() const noexcept { return full_score_; }
  double full_score_error() const noexcept { return full_score_error_; }
  /// S_full - S_base, mean over bases.
  double gain() const noexcept { return gain_; }
  /// NaN with one base and one seed.
  double gain_error() const noexcept { return gain_error_; }
  score_table const& base_scores() const noexcept { return base_; }
  score_table const& full_scores() const noexcept { return full_; }

  /// The contribution of a variant, which must have been scored on every base.
  ///
  ///   C = (S - B) / (F - B)        S, F, B: means over seeds on one base
  ///   se(C)^2 = (se(S)^2 + C^2 se(F)^2 + (1 - C)^2 se(B)^2) / (F - B)^2
  ///
  /// Runs that share a seed share random numbers, yet are taken as independent here: a positive
  /// correlation would make the true error smaller. Throws like the constructor.
  contribution measure(score_table const& scores) const {
    detail::check_scores("the variant", scores, base_.size());
    contribution result;
    std::tie(result.score, result.score_error) = detail::mean_over_bases(scores, not_a_number);
    result.by_base.assign(base_.size(), not_a_number);
    if (!measurable()) return result;
    for (std::size_t b = 0; b < base_.size(); ++b) {
      result.by_base[b] = ratio(mean(scores[b]), mean(base_[b]), mean(full_[b]));
    }
    result.value = mean(result.by_base);
    result.standard_error = base_.size() > 1 ? lamina::standard_error(result.by_base)
                                             : delta_error(scores[0], result.value);
    std::size_t const units =
        base_.size() > 1 ? base_.size() : (std::min)(scores[0].size(), full_[0].size());
    result.confidence = bootstrap_interval(
        result.value, static_cast<index_t>(units),
        [&](index_t resample) { return resampled(scores, resample); }, options_.bootstrap);
    return result;
  }

 private:
  static double ratio(double score, double base, double full) {
    return full > base ? (score - base) / (full - base) : not_a_number;
  }

  void refuse_within_noise(std::string const& where, double base, double full, double error) {
    if (!refusal_.empty()) return;
    double const gain = full - base;
    std::string const numbers =
        detail::join(where, "S_full - S_base is ", six_digits(gain), " (S_base ", six_digits(base),
                     ", S_full ", six_digits(full), ")");
    if (!(gain > 0)) {
      refusal_ = numbers + ", expected a positive gain of full training";
    } else if (gain <= options_.noise_multiple * error) {
      refusal_ = detail::join(numbers, ", within noise: its standard error is ", six_digits(error),
                              ", expected a gain of more than ",
                              six_digits(options_.noise_multiple), " standard errors");
    }
  }

  double delta_error(std::vector<double> const& scores, double value) const {
    double const once = options_.base_score_error * options_.base_score_error;
    double const variance = detail::squared_error(scores, not_a_number) +
                            value * value * detail::squared_error(full_[0], not_a_number) +
                            (1 - value) * (1 - value) * detail::squared_error(base_[0], once);
    return std::sqrt(variance) / gain_;
  }

  // Streams 2r and 2r + 1 of the bootstrap's seed: bases, full and base scores from the first, so
  // that every variant sees the same S_full in resample r; the variant's own seeds from the second.
  double resampled(score_table const& scores, index_t resample) const {
    std::uint64_t const stream = 2 * static_cast<std::uint64_t>(resample);
    counter_generator reference(options_.bootstrap.seed, stream);
    counter_generator own(options_.bootstrap.seed, stream + 1);
    double total = 0;
    for (std::size_t draw = 0; draw < base_.size(); ++draw) {
      std::size_t const b = reference.below(static_cast<std::uint32_t>(base_.size()));
      double base = resampled_mean(base_[b], reference);
      if (base_[b].size() == 1 && options_.base_score_error > 0) {
        base += options_.base_score_error * normal_quantile(reference.uniform());
      }
      double const full = resampled_mean(full_[b], reference);
      total += ratio(resampled_mean(scores[b], own), base, full);
    }
    return total / static_cast<double>(base_.size());
  }

  score_table base_;
  score_table full_;
  contribution_options options_;
  std::string refusal_;
  double base_score_ = not_a_number;
  double base_score_error_ = not_a_number;
  double full_score_ = not_a_number;
  double full_score_error_ = not_a_number;
  double gain_ = not_a_number;
  double gain_error_ = not_a_number;
};

LAMINA_NAMESPACE_END
