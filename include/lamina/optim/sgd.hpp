// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stochastic gradient descent with momentum, as torch.optim.SGD computes it.
#pragma once

#include "lamina/optim/optimizer.hpp"

LAMINA_NAMESPACE_BEGIN

/// Options of SGD; the defaults are PyTorch's: plain gradient descent.
struct sgd_options {
  double learning_rate = 1e-3;
  double momentum = 0;
  /// How much less than all of a gradient enters the momentum, from a parameter's second step on.
  double dampening = 0;
  /// Added to the gradient, times the weight, where parameter_view::decays is set.
  double weight_decay = 0;
  /// Looks one momentum step ahead; needs momentum > 0 and no dampening.
  bool nesterov = false;
  /// Greatest global gradient norm; no_clipping to leave gradients alone.
  double clip_norm = no_clipping;
  /// Multipliers of the learning rate by layer.
  layer_rates rates{};
};

/// What one SGD step needs to know of a parameter.
template <real S>
struct sgd_coefficients {
  S learning_rate;
  S weight_decay;
  S keep_momentum;     // momentum; 0 in a parameter's first step
  S take_gradient;     // 1 - dampening; 1 in a parameter's first step
  S move_by_gradient;  // 1 without momentum or with nesterov, else 0
  S move_by_momentum;  // momentum with nesterov, else 1
};

/// One row of an SGD step, with g the gradient after clipping:
///
///   g = g + decay w
///   b = momentum b + (1 - dampening) g          in a parameter's first step b = g
///   w = w - lr (nesterov ? g + momentum b : b)  without momentum w = w - lr g
///
/// Source: Sutskever et al. 2013; the variant of torch.optim.SGD.
template <storage_scalar T, real S>
struct sgd_body {
  vector_view<update_row<T, S> const> rows;
  vector_view<sgd_coefficients<S> const> coefficients;
  S gradient_scale;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t index) const {
    update_row<T, S> const row = rows[index];
    sgd_coefficients<S> const step = coefficients[row.parameter];
    S const scale = gradient_scale;
    auto const with_momentum = [&](update_row<T, S> const& r, index_t i) {
      S const weight = r.weight(i);
      S const gradient = r.gradient(i) * scale + step.weight_decay * weight;
      S const momentum = step.keep_momentum * r.first[i] + step.take_gradient * gradient;
      r.first[i] = momentum;
      r.set_weight(i, weight - step.learning_rate * (step.move_by_gradient * gradient +
                                                     step.move_by_momentum * momentum));
    };
    auto const plain = [&](update_row<T, S> const& r, index_t i) {
      S const weight = r.weight(i);
      S const gradient = r.gradient(i) * scale + step.weight_decay * weight;
      r.set_weight(i, weight - step.learning_rate * gradient);
    };
    if constexpr (std::same_as<Lanes, single_lane>) {  // loops that become vector code
      if (row.first == nullptr) {
        for (index_t i = 0; i < row.size; ++i) plain(row, i);
      } else {
        for (index_t i = 0; i < row.size; ++i) with_momentum(row, i);
      }
    } else if (row.first == nullptr) {
      row.for_each(lanes, plain);
    } else {
      row.for_each(lanes, with_momentum);
    }
  }
};

/// The update rule of SGD.
struct sgd_rule {
  using options_type = sgd_options;
  template <real S>
  using coefficients = sgd_coefficients<S>;
  template <storage_scalar T, real S>
  using body = sgd_body<T, S>;

  static constexpr char const* name = "sgd";
  static constexpr char const* moment_names[] = {"momentum"};
  static constexpr index_t moment_count(sgd_options const& options) noexcept {
    return options.momentum > 0 ? 1 : 0;
  }

  static void check(sgd_options const& options) {
    detail::check_option(name, "momentum", options.momentum, 0.0, 1.0);
    detail::check_option(name, "dampening", options.dampening, 0.0, 1.0);
    detail::check_option(name, "weight_decay", options.weight_decay, 0.0, no_clipping);
    if (options.nesterov && !(options.momentum > 0 && options.dampening == 0)) {
      throw_config_error(name, ": nesterov is set with momentum ", options.momentum,
                         " and dampening ", options.dampening,
                         ", expected momentum > 0 and dampening 0");
    }
  }

  template <real S>
  LAMINA_HOST_DEVICE static sgd_coefficients<S> prepare(sgd_options const& options,
                                                        double learning_rate, index_t step,
                                                        bool decays) {
    return {.learning_rate = static_cast<S>(learning_rate),
            .weight_decay = static_cast<S>(decays ? options.weight_decay : 0.0),
            .keep_momentum = static_cast<S>(step == 1 ? 0.0 : options.momentum),
            .take_gradient = static_cast<S>(step == 1 ? 1.0 : 1.0 - options.dampening),
            .move_by_gradient = static_cast<S>(options.nesterov ? 1.0 : 0.0),
            .move_by_momentum = static_cast<S>(options.nesterov ? options.momentum : 1.0)};
  }
};

/// SGD over the parameters of a plan:
///
///   lamina::sgd optimizer(backend, lamina::trained_parameters(model, plan),
///                         {.learning_rate = 0.1, .momentum = 0.9});
///
/// Throws config_error unless learning_rate and weight_decay are finite and >= 0, momentum and
/// dampening lie in [0, 1), nesterov has momentum and no dampening, and clip_norm > 0; otherwise as
/// optimizer.
template <tensor_backend Backend, storage_scalar T>
class sgd : public optimizer<Backend, T, sgd_rule> {
 public:
  sgd(Backend const& backend, std::vector<parameter_view<T>> parameters,
      sgd_options const& options = {})
      : optimizer<Backend, T, sgd_rule>(backend, std::move(parameters), options) {}
};

LAMINA_NAMESPACE_END
