// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The composition of a policy-gradient estimator from its parts, token by token.
#pragma once

#include <type_traits>
#include <vector>

#include "lamina/policy/advantage.hpp"
#include "lamina/policy/aggregation.hpp"
#include "lamina/policy/correction.hpp"
#include "lamina/policy/divergence.hpp"
#include "lamina/policy/entropy_bonus.hpp"
#include "lamina/policy/filter.hpp"
#include "lamina/policy/ratio.hpp"
#include "lamina/policy/surrogate.hpp"

LAMINA_NAMESPACE_BEGIN

/// What the parts of an estimator know of a token's sequence before they look at the token.
struct sequence_state {
  sequence_sum ratio{};
  sequence_sum surrogate{};
  sequence_sum correction{};
  sequence_sum filter{};
};

/// One token's share of the loss before it is weighted. V is a number or a pack.
template <class V>
struct token_loss {
  V policy{};       ///< policy term
  V kl{};           ///< KL term, with its coefficient
  V d_log_prob{};   ///< derivative with respect to the token's own log-prob
  V d_log_ratio{};  ///< derivative with respect to a log ratio that moves with the whole sequence
  V kl_estimate{};  ///< KL estimate without its coefficient
  V ratio = V(1);
  V correction = V(1);  ///< factor on the policy term
  mask_of_t<V> clipped_low{};
  mask_of_t<V> clipped_high{};
  mask_of_t<V> bounded{};
  mask_of_t<V> kept = V(0) == V(0);  ///< not filtered
};

namespace detail {

// Whether each part has a form for V; host-written parts may have one for double only.
template <class V, class Ratio, class Surrogate, class Kl, class Correction, class Filter>
concept computable = requires(Ratio const& ratio, Kl const& kl, Correction const& correction,
                              policy_token<V> const& token, sequence_sum const& sum) {
  { ratio.log_ratio(token, sum) } -> std::same_as<V>;
  { kl.at(token.advantage, token.ratio, true) } -> std::same_as<kl_loss_term<V>>;
  { correction.weight(token, sum) } -> std::same_as<V>;
}
&&(std::same_as<Filter, no_filter> ||
   requires(Filter const& filter, policy_token<V> const& token, sequence_sum const& sum) {
     { filter.keeps(token, sum) } -> std::same_as<mask_of_t<V>>;
   }) &&
    (
        requires(Surrogate const& surrogate, policy_token<V> const& token) {
          { surrogate.term(token.ratio, token.advantage) } -> std::same_as<surrogate_term<V>>;
        } ||
        requires(Surrogate const& surrogate, policy_token<V> const& token,
                 sequence_sum const& sum) {
          { surrogate.term(token, sum) } -> std::same_as<surrogate_term<V>>;
        });

template <class S>
consteval bool folds_correction() {
  return requires { requires S::folds_correction; };
}
template <class S>
consteval bool has_ratio_slope() {
  return !requires { requires S::holds_ratio_constant; };
}
template <class S>
consteval bool needs_one_advantage() {
  return requires { requires S::one_advantage_per_sequence; };
}
template <class C>
consteval bool has_log_weight() {
  return requires(C const& c, policy_token<double> const& token) { c.log_weight(token); };
}
template <class K>
consteval bool weights_by_ratio() {
  return requires { requires K::weights_by_ratio; };
}

}  // namespace detail

/// A policy-gradient estimator is a product of small parts. Every member can be set by name:
/// policy_gradient<...>{.surrogate = {.clip_high = 0.28}, .kl = {.coefficient = 0.001}}.
///
///   loss = sum_t w_t (rho_t M_t phi(r_t, A_t) + beta KL_t) - sum_t w'_t H_t
///   c_t  = d loss / d log p_t
///
/// with w from Aggregation, rho from Correction, M from Filter, phi and r from Surrogate and Ratio,
/// w' from Entropy. Every combination that makes no sense is refused at compile time.
template <advantage_rule Advantage, policy_ratio Ratio, policy_surrogate Surrogate, kl_term Kl,
          loss_aggregation Aggregation, rollout_correction Correction = no_correction,
          token_filter Filter = no_filter, entropy_term Entropy = no_entropy_bonus>
struct policy_gradient {
  /// Arrays of the batch that are read; reference log-probs if kl.active(), entropies also if
  /// entropy.active().
  static constexpr unsigned reads = detail::reads_of<Ratio>() | detail::reads_of<Surrogate>() |
                                    detail::reads_of<Correction>() | detail::reads_of<Filter>();
  /// d log_prob of one token depends on other tokens of its sequence.
  static constexpr bool coupled = Ratio::coupling != ratio_coupling::own_token;
  /// A first pass over each sequence is needed.
  static constexpr bool sequence_wide =
      lamina::sequence_wide<Ratio> || lamina::sequence_wide<Surrogate> ||
      lamina::sequence_wide<Correction> || lamina::sequence_wide<Filter>;
  static constexpr ratio_coupling coupling = Ratio::coupling;
  static constexpr bool one_advantage_per_sequence = detail::needs_one_advantage<Surrogate>();
  static constexpr bool has_correction = !std::same_as<Correction, no_correction>;
  static constexpr bool has_filter = !std::same_as<Filter, no_filter>;

  static_assert(!has_correction || (detail::reads_of<Ratio>() & token_input::old_log_probs) != 0,
                "lamina: a rollout correction compares old with sampler log-probs, so it needs a "
                "ratio that reads old_log_probs, not on_policy_ratio or a bypass ratio");
  static_assert(!lamina::sequence_wide<Surrogate> || !lamina::sequence_wide<Ratio>,
                "lamina: a surrogate that forms its own sequence ratio (gmpo_clip, vespo_weight) "
                "needs token ratios, not a ratio of the whole sequence");
  static_assert(!detail::needs_one_advantage<Surrogate>() ||
                    ((!has_correction || lamina::sequence_wide<Correction>)&&(
                        !has_filter || lamina::sequence_wide<Filter>)),
                "lamina: gmpo_clip makes one loss of a whole sequence, so a correction or a filter "
                "of single tokens has no meaning; use one of sequences");
  static_assert(!detail::folds_correction<Surrogate>() || !has_correction ||
                    detail::has_log_weight<Correction>(),
                "lamina: vespo_weight folds the rollout correction of every token into its own "
                "weight, so the correction has to be token_level");
  static_assert(!std::same_as<Aggregation, length_weighted> ||
                    Ratio::coupling == ratio_coupling::sequence_mean,
                "lamina: length_weighted multiplies the loss of a whole sequence by its length, so "
                "it needs sequence_mean_ratio");
  static_assert(Ratio::coupling != ratio_coupling::sequence_sum ||
                    std::same_as<Aggregation, sequence_mean_token_mean>,
                "lamina: sequence_sum_ratio makes one loss a sequence, so it needs "
                "sequence_mean_token_mean");
  static_assert(!detail::weights_by_ratio<Kl>() || !lamina::sequence_wide<Ratio> ||
                    detail::has_ratio_slope<Surrogate>(),
                "lamina: a ratio-weighted KL term beside a score-function surrogate needs a token "
                "ratio");

  Advantage advantage{};
  Ratio ratio{};
  Surrogate surrogate{};
  Kl kl{};
  Aggregation aggregation{};
  Correction correction{};
  Filter filter{};
  Entropy entropy{};

  /// Rewards of a batch -> one advantage a rollout, or one a token where Advantage::per_token, and
  /// the statistics of the batch. Throws as the advantage rule does.
  template <real T>
  group_advantages<T> advantages(reward_batch<T> const& batch) const {
    group_advantages<T> result;
    result.values.resize(
        static_cast<std::size_t>(Advantage::per_token ? batch.token_count() : batch.rewards.size));
    result.statistics = advantage.compute(batch, vector_view<T>(result.values));
    result.per_token = Advantage::per_token;
    return result;
  }
  /// The same for rules that read rewards [rollouts] and groups only.
  group_advantages<float> advantages(vector_view<float const> rewards,
                                     prompt_groups const& groups) const {
    return advantages(reward_batch<float>{.rewards = rewards, .groups = groups});
  }
  group_advantages<double> advantages(vector_view<double const> rewards,
                                      prompt_groups const& groups) const {
    return advantages(reward_batch<double>{.rewards = rewards, .groups = groups});
  }

  /// Adds a token's share to the sums of its sequence: ratio, surrogate, correction, filter, in the
  /// order of `sequence_state`. Only called if sequence_wide.
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE void summands(policy_token<V> token, V (&out)[4]) const {
    if constexpr (lamina::sequence_wide<Ratio>) out[0] = ratio.summand(token);
    if constexpr (lamina::sequence_wide<Surrogate>) {
      token.ratio = importance_ratio<V>(ratio.log_ratio(token, {}));
      out[1] = surrogate.summand(token);
      if constexpr (detail::folds_correction<Surrogate>() && has_correction) {
        out[1] = out[1] + correction.log_weight(token);
      }
    }
    if constexpr (lamina::sequence_wide<Correction>) out[2] = correction.summand(token);
    if constexpr (lamina::sequence_wide<Filter>) out[3] = filter.summand(token);
  }

  /// Loss and derivatives of one token (or one pack of tokens), unweighted. k is its log ratio to
  /// the reference, 0 without a KL term.
  template <class V>
  requires detail::computable<V, Ratio, Surrogate, Kl, Correction, Filter>
      LAMINA_HOST_DEVICE LAMINA_INLINE token_loss<V> evaluate(policy_token<V> token, V k,
                                                              sequence_state const& state)
  const {
    token.ratio = importance_ratio<V>(ratio.log_ratio(token, state.ratio));
    surrogate_term<V> const term = term_of(token, state.surrogate);
    V const zero = V(0), one = V(1);
    V weight = one, factor = one;
    mask_of_t<V> kept = zero == zero;
    if constexpr (has_correction && !detail::folds_correction<Surrogate>()) {
      weight = correction.weight(token, state.correction);
      factor = weight;
    }
    if constexpr (has_filter) {
      kept = filter.keeps(token, state.filter);
      factor = select(kept, factor, zero);
    }
    V own = factor * term.slope, shared = zero, estimate = zero, penalty = zero;
    if constexpr (coupled && detail::has_ratio_slope<Surrogate>()) {
      shared = own;
      own = zero;
    }
    if (kl.active()) {
      kl_loss_term<V> const divergence = kl.at(k, token.ratio, coupled);
      V const beta = V(kl.weight());
      estimate = divergence.value;
      penalty = beta * estimate;
      own = own + beta * divergence.slope;
      if constexpr (coupled) shared = shared + beta * divergence.ratio_slope;
    }
    mask_of_t<V> const low = term.clipped_low & kept, high = term.clipped_high & kept,
                       bounded = term.bounded & kept;
    return {.policy = factor * term.value,
            .kl = penalty,
            .d_log_prob = own,
            .d_log_ratio = shared,
            .kl_estimate = estimate,
            .ratio = token.ratio.value,
            .correction = weight,
            .clipped_low = low,
            .clipped_high = high,
            .bounded = bounded,
            .kept = kept};
  }

  /// Throws config_error for options that make no sense.
  void check() const {
    surrogate.check();
    kl.check();
    aggregation.check();
    correction.check();
    filter.check();
    entropy.check();
  }

 private:
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE surrogate_term<V> term_of(policy_token<V> const& token,
                                                             sequence_sum const& sum) const {
    if constexpr (requires { surrogate.term(token.ratio, token.advantage); }) {
      return surrogate.term(token.ratio, token.advantage);
    } else {
      return surrogate.term(token, sum);
    }
  }
};

/// Something that evaluates tokens: policy_gradient, or a host's own type with the same members.
template <class E>
concept policy_estimator = copyable_value<E> &&
    requires(E const& e, policy_token<double> const& token, sequence_state const& state,
             loss_denominators const& d, index_t n) {
  { e.evaluate(token, 0.0, state) } -> std::same_as<token_loss<double>>;
  { e.aggregation.weight(n, d) } -> std::same_as<double>;
  { e.kl.active() } -> std::same_as<bool>;
  { e.entropy.active() } -> std::same_as<bool>;
  { E::reads } -> std::convertible_to<unsigned>;
  { E::coupling } -> std::convertible_to<ratio_coupling>;
  { E::sequence_wide } -> std::convertible_to<bool>;
  e.check();
};

/// Says which requirement an estimator misses, one sentence a rung, in every compiler.
/// Use: static_assert(lamina::check_estimator<my_estimator>());
template <class E>
consteval bool check_estimator() {
  static_assert(
      requires(E const& e, policy_token<double> const& token, sequence_state const& state) {
        { e.evaluate(token, 0.0, state) } -> std::same_as<token_loss<double>>;
      },
      "lamina: an estimator needs evaluate(policy_token<double>, reference_log_ratio, "
      "sequence_state) const that returns token_loss<double>");
  static_assert(
      requires(E const& e) {
        requires loss_aggregation<std::remove_cvref_t<decltype(e.aggregation)>>;
      },
      "lamina: an estimator needs a member aggregation with weight(active_tokens, "
      "denominators) and check()");
  static_assert(
      requires(E const& e) { requires kl_term<std::remove_cvref_t<decltype(e.kl)>>; },
      "lamina: an estimator needs a member kl that is a kl_term; no_kl for none");
  static_assert(
      requires(E const& e) { requires entropy_term<std::remove_cvref_t<decltype(e.entropy)>>; },
      "lamina: an estimator needs a member entropy that is an entropy_term; no_entropy_bonus for "
      "none");
  static_assert(policy_estimator<E>,
                "lamina: an estimator needs static reads, coupling and sequence_wide, check() "
                "const, and to be copyable");
  return policy_estimator<E>;
}

LAMINA_NAMESPACE_END
