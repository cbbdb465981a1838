// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The clipped value loss of PPO: values in, loss, metrics and d loss / d value out.
#pragma once

#include <type_traits>

#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"
#include "lamina/policy/aggregation.hpp"
#include "lamina/policy/detail/check_denominators.hpp"
#include "lamina/policy/offsets.hpp"

LAMINA_NAMESPACE_BEGIN

/// Response tokens of a batch of sequences, packed one sequence after another, with what a value
/// model is trained on. Arrays are never read where the mask is 0.
template <real T>
struct value_batch {
  /// [sequences + 1]; sequence i owns tokens offsets[i] .. offsets[i + 1).
  vector_view<index_t const> offsets{};
  /// [tokens] value estimates at sampling time.
  vector_view<T const> old_values{};
  /// [tokens] what the values should be, as gae writes them.
  vector_view<T const> returns{};
  /// [tokens] 1 = sampled by the policy, 0 = padding or an observation; empty = all active.
  vector_view<std::uint8_t const> mask{};
  /// Counts of the whole optimizer step.
  loss_denominators denominators{};

  index_t token_count() const noexcept { return offsets.size > 0 ? offsets[offsets.size - 1] : 0; }
  bool active(index_t token) const noexcept { return mask.size == 0 || mask[token] != 0; }
  index_t active_tokens(index_t sequence) const noexcept {
    index_t count = 0;
    for (index_t t = offsets[sequence]; t < offsets[sequence + 1]; ++t) count += active(t) ? 1 : 0;
    return count;
  }
};

/// What a trainer logs. Fractions and means are over the active tokens of this call.
struct value_metrics {
  index_t active_tokens = 0;
  /// Active tokens with a value, old value, return or gradient that is infinite or NaN. They are
  /// left out of everything else and get gradient 0.
  index_t nonfinite_tokens = 0;
  /// Fraction whose gradient the clip cut.
  double clip_fraction = 0;
  double value_mean = 0;
  double return_mean = 0;
  /// 1 - var(return - value) / var(return); 0 where the returns do not vary.
  double explained_variance = 0;
};

/// With denominators of the whole step, the losses of all calls of the step add up to its loss
/// (times what the host divides by).
struct value_result {
  double loss = 0;
  value_metrics metrics{};
};

/// One token's value loss before weights.
struct value_term {
  double value = 0;
  double slope = 0;  ///< derivative with respect to the value
  bool clipped = false;
};

namespace detail {

// Mean and sum of squared deviations of numbers that come one by one.
// Source: Welford 1962, "Note on a method for calculating corrected sums of squares and products".
struct running_moments {
  double count = 0, mean = 0, squares = 0;
  void add(double x) noexcept {
    count += 1;
    double const step = x - mean;
    mean += step / count;
    squares += step * (x - mean);
  }
};

}  // namespace detail

/// Clipped value loss, as OpenAI baselines (ppo2), TRL and verl have it:
///
///   loss = coefficient * aggregate 0.5 max((v - R)^2, (clip(v, v_old - clip, v_old + clip) - R)^2)
///
///   d loss / d v = coefficient * w * (v - R), but 0 where the clipped square is strictly larger
///
/// w comes from Aggregation.
template <loss_aggregation Aggregation = token_mean>
struct value_loss {
  /// How far a value may move from its old one before moving further gains nothing; infinity: as
  /// far as it likes. 0.2 in TRL, 0.5 in verl.
  double clip = 0.2;
  /// Weight of this loss beside the policy's where one model has both: 0.1 in TRL.
  double coefficient = 1;
  Aggregation aggregation{};

  LAMINA_HOST_DEVICE value_term term(double value, double old_value, double target) const noexcept {
    double const least = old_value - clip, most = old_value + clip;
    double const bounded = value < least ? least : value > most ? most : value;
    double const error = value - target, bounded_error = bounded - target;
    double const square = error * error, bounded_square = bounded_error * bounded_error;
    if (bounded_square > square) return {0.5 * bounded_square, 0.0, true};
    return {0.5 * square, error, false};
  }

  /// values    [tokens]  of the current value model; never read where the mask is 0
  /// d_values  [tokens]  written: d loss / d values, exactly 0 where the mask is 0; may alias
  /// values A batch without active tokens has loss 0. Sums run in token order in double: the result
  /// is the same on every run. Throws shape_error or config_error, naming what does not fit, before
  /// anything is written.
  template <real T>
  value_result compute(vector_view<std::type_identity_t<T> const> values,
                       value_batch<T> const& batch,
                       vector_view<std::type_identity_t<T>> d_values) const {
    check(batch, values.size, d_values.size);
    value_result result;
    value_metrics& metrics = result.metrics;
    detail::running_moments of_values, of_returns, of_errors;
    index_t clipped = 0;
    for (index_t i = 0; i + 1 < batch.offsets.size; ++i) {
      double const weight =
          coefficient * aggregation.weight(batch.active_tokens(i), batch.denominators);
      for (index_t t = batch.offsets[i]; t < batch.offsets[i + 1]; ++t) {
        if (!batch.active(t)) {
          d_values[t] = T(0);
          continue;
        }
        ++metrics.active_tokens;
        double const value = static_cast<double>(values[t]);
        double const old_value = static_cast<double>(batch.old_values[t]);
        double const target = static_cast<double>(batch.returns[t]);
        value_term const loss = term(value, old_value, target);
        T const slope = static_cast<T>(weight * loss.slope);
        if (!is_finite(value) || !is_finite(old_value) || !is_finite(target) ||
            !is_finite(weight * loss.value) || !is_finite(slope)) {
          d_values[t] = T(0);
          ++metrics.nonfinite_tokens;
          continue;
        }
        d_values[t] = slope;
        result.loss += weight * loss.value;
        clipped += loss.clipped ? 1 : 0;
        of_values.add(value);
        of_returns.add(target);
        of_errors.add(target - value);
      }
    }
    if (of_values.count > 0) {
      metrics.clip_fraction = static_cast<double>(clipped) / of_values.count;
      metrics.value_mean = of_values.mean;
      metrics.return_mean = of_returns.mean;
    }
    if (of_returns.squares > 0) {
      metrics.explained_variance = 1 - of_errors.squares / of_returns.squares;
    }
    return result;
  }

 private:
  template <real T>
  void check(value_batch<T> const& batch, index_t values, index_t d_values) const {
    if (is_nan(clip) || !(clip > 0)) {
      throw_config_error("value_loss: clip is ", clip, ", expected a value > 0");
    }
    if (!is_finite(coefficient) || coefficient < 0) {
      throw_config_error("value_loss: coefficient is ", coefficient,
                         ", expected a finite value >= 0");
    }
    aggregation.check();
    detail::check_offsets("value_loss", "offsets", batch.offsets, "sequences");
    index_t const tokens = batch.token_count();
    auto const per_token = [&](char const* name, index_t size) {
      if (size != tokens) {
        throw_shape_error("value_loss: ", name, " has ", size, " entries, the batch has ", tokens,
                          " tokens");
      }
    };
    per_token("values", values);
    per_token("d_values", d_values);
    per_token("old_values", batch.old_values.size);
    per_token("returns", batch.returns.size);
    if (!batch.mask.empty()) per_token("mask", batch.mask.size);
    index_t const sequences = batch.offsets.size - 1;
    index_t active = 0;
    for (index_t i = 0; i < sequences; ++i) active += batch.active_tokens(i);
    detail::check_denominators("value_loss", batch.denominators, sequences, active);
  }
};

LAMINA_NAMESPACE_END
