// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// KL penalties to a reference policy: per-token estimators and their place in the loss.
#pragma once

#include <cmath>
#include <concepts>

#include "lamina/core/error.hpp"
#include "lamina/core/scalar.hpp"

LAMINA_NAMESPACE_BEGIN

/// Value of a KL estimator at one token and its derivative with respect to the log-prob.
struct kl_value {
  double value = 0;
  double slope = 0;
};

/// e.at(k) for the log ratio to the reference k = log pi - log pi_ref.
/// Source of all three: Schulman 2020, "Approximating KL divergence".
template <class E>
concept kl_estimator = std::copy_constructible<E> && requires(E const& e, double k) {
  { e.at(k) } -> std::same_as<kl_value>;
};

/// k1 = k. As a term of the loss its expected gradient is 0: it measures, it does not penalise.
struct kl_k1 {
  LAMINA_HOST_DEVICE kl_value at(double k) const noexcept { return {k, 1.0}; }
};

/// k2 = k^2 / 2. On-policy its gradient is that of the reverse KL, without bias.
struct kl_k2 {
  LAMINA_HOST_DEVICE kl_value at(double k) const noexcept { return {0.5 * k * k, k}; }
};

/// k3 = exp(-k) + k - 1, never negative; its derivative is 1 - exp(-k). Beyond k = -20 the
/// exponential stays at its value there: a token that drifted far keeps a large finite pull back.
struct kl_k3 {
  LAMINA_HOST_DEVICE kl_value at(double k) const noexcept {
    double const growth = std::expm1(k < -20.0 ? 20.0 : -k);
    return {growth + k, -growth};
  }
};

/// A KL term of the loss. p.active() says whether reference log-probs are read at all.
template <class P>
concept kl_term = std::copy_constructible<P> && requires(P const& p, double k) {
  { p.active() } -> std::same_as<bool>;
  { p.weight() } -> std::same_as<double>;
  { p.at(k) } -> std::same_as<kl_value>;
  p.check();
};

/// No KL term.
struct no_kl {
  LAMINA_HOST_DEVICE static constexpr bool active() noexcept { return false; }
  LAMINA_HOST_DEVICE static constexpr double weight() noexcept { return 0; }
  LAMINA_HOST_DEVICE static constexpr kl_value at(double) noexcept { return {}; }
  static constexpr void check() noexcept {}
};

/// loss += coefficient * aggregate(KL estimate), with the aggregation of the policy term. A
/// coefficient of 0 switches the term off: no reference log-probs are needed.
template <kl_estimator Estimator = kl_k3>
struct kl_penalty {
  double coefficient = 0;
  [[no_unique_address]] Estimator estimator{};

  LAMINA_HOST_DEVICE bool active() const noexcept { return coefficient != 0; }
  LAMINA_HOST_DEVICE double weight() const noexcept { return coefficient; }
  LAMINA_HOST_DEVICE kl_value at(double k) const noexcept { return estimator.at(k); }
  void check() const {
    if (!(coefficient >= 0) || !is_finite(coefficient)) {
      throw_config_error("kl_penalty: coefficient is ", coefficient,
                         ", expected a finite value >= 0");
    }
  }
};

static_assert(kl_term<no_kl> && kl_term<kl_penalty<kl_k1>> && kl_term<kl_penalty<kl_k2>> &&
              kl_term<kl_penalty<kl_k3>>);

LAMINA_NAMESPACE_END
