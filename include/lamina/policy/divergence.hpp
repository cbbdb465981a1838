// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// KL penalties to a reference policy: per-token estimators and their place in the loss.
#pragma once

#include "lamina/core/error.hpp"
#include "lamina/policy/policy_token.hpp"

LAMINA_NAMESPACE_BEGIN

/// Value of a KL estimator at one token and its derivative with respect to the log-prob.
template <class V>
struct kl_value {
  V value{};
  V slope{};
};

/// e.at(k) for the log ratio to the reference k = log pi - log pi_ref.
/// Source of k1, k2 and k3: Schulman 2020, "Approximating KL divergence".
template <class E>
concept kl_estimator = copyable_value<E> && requires(E const& e, double k) {
  { e.at(k) } -> std::same_as<kl_value<double>>;
};

/// k1 = k. As a term of the loss its expected gradient is 0: it measures, it does not penalise. In
/// the reward it is the unbiased choice.
struct kl_k1 {
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE kl_value<V> at(V k) const {
    return {k, V(1)};
  }
};

/// |k|, with derivative sign(k).
struct kl_abs {
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE kl_value<V> at(V k) const {
    return {absolute(k), select(k > V(0), V(1), select(k < V(0), V(-1), V(0)))};
  }
};

/// k2 = k^2 / 2. On-policy its gradient is that of the reverse KL, without bias.
struct kl_k2 {
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE kl_value<V> at(V k) const {
    return {V(0.5) * k * k, k};
  }
};

/// k3 = exp(-k) + k - 1, never negative; its derivative is 1 - exp(-k). Beyond k = -20 the
/// exponential stays at its value there: a token that drifted far keeps a large finite pull back.
struct kl_k3 {
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE kl_value<V> at(V k) const {
    V const growth = detail::expm1_below(-k, 20.0);
    return {growth + k, -growth};
  }
  /// value + slope, free of the cancellation between them; at the cap of the exponential too.
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE V value_plus_slope(V k) const {
    return k;
  }
};

/// k3 as verl computes it: exponent and value are clamped (to +-20 and +-10), and with them the
/// gradient, which is 0 once the reference is 2.61 nats above the policy. For comparison; kl_k3
/// keeps pulling there.
struct kl_k3_clamped {
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE kl_value<V> at(V k) const {
    V const growth = bounded_expm1(-k, 20.0);
    V const value = growth + k;
    auto const cut = (value > V(10)) | (value < V(-10));
    auto const flat = cut | (k > V(20)) | (k < V(-20));
    return {clamp(value, -10.0, 10.0), select(flat, select(cut, V(0), V(1)), -growth)};
  }
};

/// The value of another estimator with the slope k of k2: what is logged is Estimator, what is
/// descended is the reverse KL. (The "+" variants of verl.)
template <kl_estimator Estimator = kl_k3>
struct straight_through {
  Estimator estimator{};
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE kl_value<V> at(V k) const {
    return {estimator.at(k).value, k};
  }
};

/// A KL term at one token.
template <class V>
struct kl_loss_term {
  V value{};
  V slope{};        ///< derivative with respect to the token's own log-prob
  V ratio_slope{};  ///< derivative with respect to the log ratio, where that is the sequence's
};

/// A KL term of the loss. p.active() says whether reference log-probs are read at all; p.at(k,
/// ratio, coupled) is the term at a token, where `coupled` says that the ratio moves with the whole
/// sequence, so that its derivative is to be told apart.
template <class P>
concept kl_term = copyable_value<P> &&
    requires(P const& p, double k, importance_ratio<double> const& ratio) {
  { p.active() } -> std::same_as<bool>;
  { p.weight() } -> std::same_as<double>;
  { p.at(k, ratio, true) } -> std::same_as<kl_loss_term<double>>;
  p.check();
};

/// No KL term.
struct no_kl {
  LAMINA_HOST_DEVICE static constexpr bool active() noexcept { return false; }
  LAMINA_HOST_DEVICE static constexpr double weight() noexcept { return 0; }
  template <class V>
  LAMINA_HOST_DEVICE static kl_loss_term<V> at(V, importance_ratio<V> const&, bool) {
    return {};
  }
  static constexpr void check() noexcept {}
};

/// Coefficient a KL term has until it is set.
struct kl_off {
  static constexpr double coefficient = 0;
};

/// loss += coefficient * aggregate(KL estimate), with the aggregation of the policy term. A
/// coefficient of 0 switches the term off: no reference log-probs are needed. The term is neither
/// filtered nor weighted by a rollout correction.
template <kl_estimator Estimator = kl_k3, class Defaults = kl_off>
struct kl_penalty {
  double coefficient = Defaults::coefficient;
  Estimator estimator{};

  LAMINA_HOST_DEVICE bool active() const noexcept { return coefficient != 0; }
  LAMINA_HOST_DEVICE double weight() const noexcept { return coefficient; }
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE kl_loss_term<V> at(V k, importance_ratio<V> const& /*ratio*/,
                                                      bool /*coupled*/) const {
    kl_value<V> const kl = estimator.at(k);
    return {kl.value, kl.slope, V(0)};
  }
  void check() const {
    if (!(coefficient >= 0) || !is_finite(coefficient)) {
      throw_config_error("kl_penalty: coefficient is ", coefficient,
                         ", expected a finite value >= 0");
    }
  }
};

/// The KL estimate weighted by the importance ratio, whose derivative counts: r (k3). With a token
/// ratio the derivative of r k3 is exactly r k, the unbiased gradient of the reverse KL, off-policy
/// too. Source: DeepSeek-V3.2 (arXiv:2512.02556), eq. 7.
template <kl_estimator Estimator = kl_k3, class Defaults = kl_off>
struct ratio_weighted_kl_penalty {
  static constexpr bool weights_by_ratio = true;
  double coefficient = Defaults::coefficient;
  Estimator estimator{};

  LAMINA_HOST_DEVICE bool active() const noexcept { return coefficient != 0; }
  LAMINA_HOST_DEVICE double weight() const noexcept { return coefficient; }
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE kl_loss_term<V> at(V k, importance_ratio<V> const& ratio,
                                                      bool coupled) const {
    kl_value<V> const kl = estimator.at(k);
    V const value = ratio.value * kl.value;
    V const own = ratio.value * kl.slope;
    V const through_ratio = select(ratio.beyond, V(0), value);
    if (coupled) return {value, own, through_ratio};
    V both = own + through_ratio;
    if constexpr (requires { estimator.value_plus_slope(k); }) {
      both = select(ratio.beyond, both, ratio.value * estimator.value_plus_slope(k));
    }
    return {value, both, V(0)};
  }
  void check() const {
    if (!(coefficient >= 0) || !is_finite(coefficient)) {
      throw_config_error("ratio_weighted_kl_penalty: coefficient is ", coefficient,
                         ", expected a finite value >= 0");
    }
  }
};

static_assert(kl_estimator<kl_k1> && kl_estimator<kl_abs> && kl_estimator<kl_k2> &&
              kl_estimator<kl_k3> && kl_estimator<kl_k3_clamped> &&
              kl_estimator<straight_through<kl_k1>>);
static_assert(kl_term<no_kl> && kl_term<kl_penalty<kl_k3>> &&
              kl_term<ratio_weighted_kl_penalty<kl_k3>>);

LAMINA_NAMESPACE_END
