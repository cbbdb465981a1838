// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Whitening: advantages shifted and scaled to mean 0 and variance 1, over the active tokens or over
// the rollouts of a batch.
#pragma once

#include <cmath>
#include <concepts>
#include <type_traits>

#include "lamina/core/error.hpp"
#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"
#include "lamina/policy/advantage.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Values of tokens, in place; NaN stays out and becomes 0, as what is masked does. One row.
template <real T>
struct token_whitening_body {
  static constexpr row_schedule schedule = row_schedule::block;
  double epsilon, count_epsilon;
  bool shift_mean;
  vector_view<T> values;
  vector_view<std::uint8_t const> mask;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t /*row*/) const {
    auto const& own = *this;
    spread const all = spread_of(lanes, values.size, [&own](index_t t) { return own.counted(t); });
    double const n = static_cast<double>(all.scored);
    double const mean = all.scored > 0 ? all.mean * n / (n + count_epsilon) : 0.0;
    double const shift = all.mean - mean;
    double const squares = all.deviation * all.deviation * (n - 1) + n * shift * shift;
    double const variance = all.flat ? 0.0 : squares / (n + count_epsilon) * (n / (n - 1));
    double const root = std::sqrt(variance + epsilon);
    double const factor = all.flat || root == 0 ? 0.0 : 1.0 / root;
    double const kept = shift_mean ? 0.0 : mean;
    for (index_t t = lanes.lane(); t < values.size; t += lanes.count()) {
      values[t] = advantage_or_zero<T>((counted(t) - mean) * factor + kept);
    }
  }

 private:
  LAMINA_HOST_DEVICE double counted(index_t t) const {
    return mask.size == 0 || mask[t] != 0 ? static_cast<double>(values[t]) : no_reward;
  }
};

}  // namespace detail

/// The defaults of basic_token_whitening: verl's. TRL's PPO has count_epsilon = 0.
struct whitening_defaults {
  static constexpr double epsilon = 1e-8;
  static constexpr double count_epsilon = 1e-8;
};

/// How token values are whitened, over the N active tokens:
///
///   (x - mean) / sqrt(var + epsilon),    mean = sum x / (N + count_epsilon)
///   var = sum (x - mean)^2 / (N + count_epsilon) * N / (N - 1)
///
/// Long sequences weigh more than short ones. Source: verl (utils/torch_functional.py,
/// masked_whiten).
template <class Defaults = whitening_defaults>
struct basic_token_whitening {
  /// Added to the variance, inside the root.
  double epsilon = Defaults::epsilon;
  /// Added to N in both means.
  double count_epsilon = Defaults::count_epsilon;
  /// False adds the mean back after scaling, as TRL does for rewards.
  bool shift_mean = true;

  /// Throws config_error for an epsilon that is negative or not finite.
  void check() const {
    detail::check_epsilon("token_whitening", epsilon);
    if (!is_finite(count_epsilon) || !(count_epsilon >= 0)) {
      throw_config_error("token_whitening: count_epsilon is ", count_epsilon,
                         ", expected a finite value >= 0");
    }
  }

  /// Whitens values in place, as whiten_tokens does; NaN at an active token stays out and becomes
  /// 0.
  template <row_executor Executor, real T>
  void run(Executor const& executor, vector_view<T> values,
           vector_view<std::uint8_t const> mask) const {
    executor.run(1,
                 detail::token_whitening_body<T>{epsilon, count_epsilon, shift_mean, values, mask});
  }
};
using token_whitening = basic_token_whitening<>;

namespace detail {

// All values of a batch. One row.
template <real T>
struct batch_whitening_body {
  static constexpr row_schedule schedule = row_schedule::block;
  vector_view<double const> values, kept;
  double epsilon;
  vector_view<T> advantages;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t /*row*/) const {
    vector_view<double const> const own = values;
    spread const all = spread_of(lanes, own.size, [own](index_t i) { return own[i]; });
    double sum = 0;  // without the rounding of groups that add up to 0
    for (index_t i = lanes.lane(); i < kept.size; i += lanes.count()) sum += kept[i];
    sum = lanes.sum(sum);
    double const mean = all.scored > 0 ? sum / static_cast<double>(all.scored) : 0.0;
    double const factor = all.flat ? 0.0 : 1.0 / (all.deviation + epsilon);
    for (index_t i = lanes.lane(); i < values.size; i += lanes.count()) {
      advantages[i] = advantage_or_zero<T>((values[i] - mean) * factor);
    }
  }
};

// Values as they are. A row is a rollout.
template <real T>
struct unwhitened_body {
  static constexpr row_schedule schedule = row_schedule::thread;
  vector_view<double const> values;
  vector_view<T> advantages;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() == 0) advantages[row] = advantage_or_zero<T>(values[row]);
  }
};

}  // namespace detail

/// (a - mean) / (s + epsilon) over the rollouts of the batch that have an advantage, with their
/// sample standard deviation s. Source: TRL (rloo_trainer.py, normalize_advantages).
template <class Defaults = batch_defaults>
struct basic_batch_whitening {
  /// Added to the standard deviation, outside the root.
  double epsilon = Defaults::epsilon;

  void check() const { detail::check_epsilon("batch_whitening", epsilon); }

  /// values      [rollouts]  NaN where there is no advantage
  /// kept        [rollouts]  those of the values that their group does not make add up to 0
  /// advantages  [rollouts]  written, 0 where there is none
  template <row_executor Executor, real T>
  void run(Executor const& executor, vector_view<double const> values,
           vector_view<double const> kept, vector_view<T> advantages) const {
    executor.run(1, detail::batch_whitening_body<T>{values, kept, epsilon, advantages});
  }
};
using batch_whitening = basic_batch_whitening<>;

/// Nothing is whitened.
struct no_whitening {
  static constexpr void check() noexcept {}
  template <row_executor Executor, real T>
  static constexpr void run(Executor const& /*executor*/, vector_view<T> /*values*/,
                            vector_view<std::uint8_t const> /*mask*/) noexcept {}
  template <row_executor Executor, real T>
  static void run(Executor const& executor, vector_view<double const> values,
                  vector_view<double const> /*kept*/, vector_view<T> advantages) {
    executor.run(advantages.size, detail::unwhitened_body<T>{values, advantages});
  }
};

/// What a rule per token does with its advantages in the end, in place, as row bodies:
/// w.run(executor, values, mask).
template <class W>
concept token_normalizer = copyable_value<W> &&
    requires(W const& w, vector_view<double> values, vector_view<std::uint8_t const> mask) {
  w.run(host_rows<>{}, values, mask);
  w.check();
};

/// What a rule per rollout does with its advantages in the end, as row bodies:
/// w.run(executor, values, kept, advantages).
template <class W>
concept rollout_normalizer = copyable_value<W> &&
    requires(W const& w, vector_view<double const> values, vector_view<double> advantages) {
  w.run(host_rows<>{}, values, values, advantages);
  w.check();
};
/// Whether a normalizer does anything.
template <class W>
inline constexpr bool is_whitened = !std::same_as<W, no_whitening>;

/// Whitens values in place.
///
/// values  [tokens]  finite where active; entries at masked tokens are not read and become 0
/// mask    [tokens]  1 = active; empty = all active
/// Values that are all equal, or fewer than two, become 0 (their mean without shift_mean).
/// Throws shape_error if the sizes differ, config_error for an option or a value that is not
/// allowed, before anything is written.
template <real T>
void whiten_tokens(vector_view<T> values,
                   std::type_identity_t<vector_view<std::uint8_t const>> mask,
                   token_whitening const& options = {}) {
  options.check();
  if (!mask.empty() && mask.size != values.size) {
    throw_shape_error("whiten_tokens: values has ", values.size, " entries, mask ", mask.size,
                      "; expected equal counts or an empty mask");
  }
  for (index_t t = 0; t < values.size; ++t) {
    if (!mask.empty() && mask[t] == 0) continue;
    // More than a reward may be: a sum over the rewards of a rollout.
    detail::check_number("whiten_tokens", "values", t, static_cast<double>(values[t]), 1e150);
  }
  options.run(host_rows<>{}, values, mask);
}

static_assert(token_normalizer<token_whitening> && token_normalizer<no_whitening>);
static_assert(rollout_normalizer<batch_whitening> && rollout_normalizer<no_whitening>);

LAMINA_NAMESPACE_END
