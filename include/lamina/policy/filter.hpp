// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Filters inside an estimator: which active tokens take part in the policy term. A filtered token
// stays in the denominators and keeps its KL term; masks that remove tokens from the denominators
// too are made before the loss, see token_mask.hpp.
#pragma once

#include "lamina/core/error.hpp"
#include "lamina/policy/policy_token.hpp"

LAMINA_NAMESPACE_BEGIN

/// f.keeps(token, sum): whether an active token's policy term counts. F::filters_entropy says
/// whether an entropy bonus is filtered alike.
template <class F>
concept token_filter = copyable_value<F> &&
    requires(F const& f, policy_token<double> const& token, sequence_sum const& sum) {
  { f.keeps(token, sum) } -> std::same_as<bool>;
  { F::filters_entropy } -> std::convertible_to<bool>;
  f.check();
};

/// Every active token counts.
struct no_filter {
  static constexpr bool filters_entropy = false;
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE static mask_of_t<V> keeps(policy_token<V> const& /*unused*/,
                                                             sequence_sum const& /*unused*/) {
    return V(0) == V(0);
  }
  static constexpr void check() noexcept {}
};

/// Keeps tokens whose entropy is at least `threshold`, nats (top_entropy_threshold finds it from
/// the entropies of the whole step). An entropy bonus is filtered alike. Denominators unchanged.
/// Source: Wang et al. 2025 (arXiv:2506.01939).
struct top_entropy_filter {
  static constexpr unsigned reads = token_input::entropies;
  static constexpr bool filters_entropy = true;
  double threshold = 0;

  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE mask_of_t<V> keeps(policy_token<V> const& token,
                                                      sequence_sum const& /*unused*/) const {
    return !(token.entropy < V(threshold));
  }
  void check() const {
    if (!is_finite(threshold)) {
      throw_config_error("top_entropy_filter: threshold is ", threshold,
                         ", expected a finite number of nats");
    }
  }
};

/// Drops sequences with a negative advantage that the policy has moved away from:
/// mean_t (log pi_sampler - log pi) > threshold. Denominators unchanged.
/// Source: DeepSeek-V3.2 (arXiv:2512.02556), eq. 9. Sampler = old_policy compares with the
/// trainer's log-probs at sampling time, where the sampler's own are not at hand.
template <class Sampler>
struct basic_off_policy_filter {
  static constexpr unsigned reads = Sampler::reads;
  static constexpr bool filters_entropy = false;
  double threshold = 0.5;

  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE V summand(policy_token<V> const& token) const {
    return Sampler::log_prob(token) - token.log_prob;
  }
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE mask_of_t<V> keeps(policy_token<V> const& token,
                                                      sequence_sum const& sum) const {
    return !((token.advantage < V(0)) & (V(sum.mean()) > V(threshold)));
  }
  void check() const {
    if (!is_finite(threshold)) {
      throw_config_error("off_policy_filter: threshold is ", threshold,
                         ", expected a finite number of nats");
    }
  }
};

/// Drops the selected tokens of the batch (select_clip_cov draws them). Denominators unchanged.
/// Source: Clip-Cov, Cui et al. 2025 (arXiv:2505.22617), section 4.2.
struct selection_filter {
  static constexpr unsigned reads = token_input::selected;
  static constexpr bool filters_entropy = false;
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE mask_of_t<V> keeps(policy_token<V> const& token,
                                                      sequence_sum const& /*unused*/) const {
    return !token.selected;
  }
  static constexpr void check() noexcept {}
};

/// Keeps what both filters keep; at most one of them may look at whole sequences.
template <token_filter First, token_filter Second>
struct both_filters {
  static_assert(!(sequence_wide<First> && sequence_wide<Second>),
                "lamina: at most one of two combined filters may look at whole sequences");
  static constexpr unsigned reads = detail::reads_of<First>() | detail::reads_of<Second>();
  static constexpr bool filters_entropy = First::filters_entropy || Second::filters_entropy;
  First first{};
  Second second{};

  template <class V>
  requires(sequence_wide<First> || sequence_wide<Second>) LAMINA_HOST_DEVICE LAMINA_INLINE V
      summand(policy_token<V> const& token)
  const {
    if constexpr (sequence_wide<First>) {
      return first.summand(token);
    } else {
      return second.summand(token);
    }
  }
  template <class V>
  LAMINA_HOST_DEVICE LAMINA_INLINE mask_of_t<V> keeps(policy_token<V> const& token,
                                                      sequence_sum const& sum) const {
    mask_of_t<V> const by_first = first.keeps(token, sum);
    mask_of_t<V> const by_second = second.keeps(token, sum);
    return by_first & by_second;
  }
  void check() const {
    first.check();
    second.check();
  }
};

using off_policy_filter = basic_off_policy_filter<rollout_policy>;

static_assert(token_filter<off_policy_filter> && sequence_wide<off_policy_filter>);
static_assert(token_filter<no_filter> && token_filter<top_entropy_filter> &&
              token_filter<selection_filter>);

LAMINA_NAMESPACE_END
