// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// AdamW: Adam with decoupled weight decay, as torch.optim.AdamW computes it.
#pragma once

#include <cmath>
#include <concepts>

#include "lamina/optim/detail/square_root.hpp"
#include "lamina/optim/optimizer.hpp"

LAMINA_NAMESPACE_BEGIN

/// Options of AdamW; the defaults are PyTorch's.
struct adamw_options {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  /// Added to the root of the second moment, after bias correction.
  double epsilon = 1e-8;
  /// Applied to parameters whose parameter_view::decays is set.
  double weight_decay = 0.01;
  /// Greatest global gradient norm; no_clipping to leave gradients alone.
  double clip_norm = no_clipping;
  /// Multipliers of the learning rate by layer.
  layer_rates rates{};
};

/// What one AdamW step needs to know of a parameter.
template <real S>
struct adamw_coefficients {
  S keep_weight;      // 1 - learning_rate * weight_decay
  S take_first;       // 1 - beta1
  S keep_second;      // beta2
  S take_second;      // 1 - beta2
  S step_size;        // learning_rate / (1 - beta1^t)
  S root_correction;  // 1 / sqrt(1 - beta2^t)
  S epsilon;

  /// Brings both moments up to date; the root of the second is what the weight's move needs.
  LAMINA_HOST_DEVICE constexpr void update_moments(S gradient, S& first, S& second) const noexcept {
    first += take_first * (gradient - first);
    second = keep_second * second + take_second * (gradient * gradient);
  }
  LAMINA_HOST_DEVICE constexpr S moved(S weight, S first, S second_root) const noexcept {
    return keep_weight * weight - step_size * first / (second_root * root_correction + epsilon);
  }
};

/// One row of an AdamW step number t, with g the gradient after clipping:
///
///   m = beta1 m + (1 - beta1) g
///   v = beta2 v + (1 - beta2) g^2
///   w = (1 - lr decay) w - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
///
/// Source: Loshchilov and Hutter 2019, algorithm 2; the order of operations of torch.optim.AdamW.
template <storage_scalar T, real S>
struct adamw_body {
  vector_view<update_row<T, S> const> rows;
  vector_view<adamw_coefficients<S> const> coefficients;
  S gradient_scale;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t index) const {
    update_row<T, S> const row = rows[index];
    adamw_coefficients<S> const step = coefficients[row.parameter];
    if constexpr (std::same_as<Lanes, single_lane>) {
      in_tiles(row, step);
    } else {
      S const scale = gradient_scale;
      row.for_each(lanes, [&](update_row<T, S> const& r, index_t i) {
        using std::sqrt;
        step.update_moments(r.gradient(i) * scale, r.first[i], r.second[i]);
        r.set_weight(i, step.moved(r.weight(i), r.first[i], sqrt(r.second[i])));
      });
    }
  }

 private:
  // The same operations on the same numbers, with the roots of a tile taken together, so that all
  // three loops are vector code; tests hold both forms to the same bits.
  LAMINA_HOST_DEVICE void in_tiles(update_row<T, S> const& row,
                                   adamw_coefficients<S> const& step) const {
    constexpr index_t tile = 256;
    S roots[tile];
    for (index_t first = 0; first < row.size; first += tile) {
      index_t const count = row.size - first < tile ? row.size - first : tile;
      for (index_t i = 0; i < count; ++i) {
        S const gradient = row.gradient(first + i) * gradient_scale;
        step.update_moments(gradient, row.first[first + i], row.second[first + i]);
        roots[i] = row.second[first + i];
      }
      detail::square_roots(roots, count);
      for (index_t i = 0; i < count; ++i) {
        index_t const at = first + i;
        row.set_weight(at, step.moved(row.weight(at), row.first[at], roots[i]));
      }
    }
  }
};

/// The update rule of AdamW.
struct adamw_rule {
  using options_type = adamw_options;
  template <real S>
  using coefficients = adamw_coefficients<S>;
  template <storage_scalar T, real S>
  using body = adamw_body<T, S>;

  static constexpr char const* name = "adamw";
  static constexpr char const* moment_names[] = {"first_moment", "second_moment"};
  static constexpr index_t moment_count(adamw_options const&) noexcept { return 2; }

  static void check(adamw_options const& options) {
    detail::check_option(name, "beta1", options.beta1, 0.0, 1.0);
    detail::check_option(name, "beta2", options.beta2, 0.0, 1.0);
    if (!is_finite(options.epsilon) || options.epsilon <= 0) {
      throw_config_error(name, ": epsilon is ", options.epsilon, ", expected finite and > 0");
    }
    detail::check_option(name, "weight_decay", options.weight_decay, 0.0, no_clipping);
  }

  template <real S>
  LAMINA_HOST_DEVICE static adamw_coefficients<S> prepare(adamw_options const& options,
                                                          double learning_rate, index_t step,
                                                          bool decays) {
    using std::pow;
    using std::sqrt;
    double const t = static_cast<double>(step);
    double const correction1 = 1.0 - pow(options.beta1, t);
    double const correction2 = 1.0 - pow(options.beta2, t);
    double const decay = decays ? options.weight_decay : 0.0;
    return {.keep_weight = static_cast<S>(1.0 - learning_rate * decay),
            .take_first = static_cast<S>(1.0 - options.beta1),
            .keep_second = static_cast<S>(options.beta2),
            .take_second = static_cast<S>(1.0 - options.beta2),
            .step_size = static_cast<S>(learning_rate / correction1),
            .root_correction = static_cast<S>(1.0 / sqrt(correction2)),
            .epsilon = static_cast<S>(options.epsilon)};
  }
};

/// AdamW over the parameters of a plan:
///
///   lamina::adamw optimizer(backend, lamina::trained_parameters(model, plan),
///                           {.learning_rate = 5e-6, .clip_norm = 1.0});
///
/// Throws config_error unless learning_rate and weight_decay are finite and >= 0, both betas lie in
/// [0, 1), epsilon > 0 and clip_norm > 0; otherwise as optimizer.
template <tensor_backend Backend, storage_scalar T>
class adamw : public optimizer<Backend, T, adamw_rule> {
 public:
  adamw(Backend const& backend, std::vector<parameter_view<T>> parameters,
        adamw_options const& options = {})
      : optimizer<Backend, T, adamw_rule>(backend, std::move(parameters), options) {}
};

LAMINA_NAMESPACE_END
