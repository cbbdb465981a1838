// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tokens of a batch as numbers or packs: how they are read, weighted, written and summed.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#include "lamina/policy/estimator.hpp"
#include "lamina/policy/policy_batch.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Tokens of a batch as numbers or packs. A pack past the end of a sequence is filled with inactive
// lanes, so that padding changes no bit of any sum.
template <class V, real T>
struct token_reader {
  using scalar = scalar_of_t<V>;
  static constexpr bool packed = !std::same_as<V, scalar>;
  static constexpr index_t lanes = [] {
    if constexpr (packed) {
      return V::lanes;
    } else {
      return index_t(1);
    }
  }();

  index_t count;  // lanes that exist, 1 .. lanes

  template <class U>
  LAMINA_HOST_DEVICE LAMINA_INLINE V load(U const* from) const {
    if constexpr (!packed) {
      return static_cast<V>(*from);
    } else if (count == lanes) {
      return V::load(from);
    } else {
      U partial[lanes] = {};
      std::memcpy(partial, from, static_cast<std::size_t>(count) * sizeof(U));
      return V::load(partial);
    }
  }
  template <class U>
  LAMINA_HOST_DEVICE LAMINA_INLINE void store(U* to, V const& x) const {
    if constexpr (!packed) {
      *to = static_cast<U>(x);
    } else if (count == lanes) {
      x.store(to);
    } else {
      U partial[lanes];
      x.store(partial);
      std::memcpy(to, partial, static_cast<std::size_t>(count) * sizeof(U));
    }
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE mask_of_t<V> flags(std::uint8_t const* from) const {
    return !(load(from) == V(0));
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE mask_of_t<V> exists() const {
    if constexpr (!packed) {
      return true;
    } else {
      std::uint8_t partial[lanes];
      for (index_t i = 0; i < lanes; ++i) partial[i] = i < count ? 1 : 0;
      return !(V::load(partial) == V(0));
    }
  }
};

// A host's own estimator need not say; then it may.
template <class Estimator>
consteval bool has_correction() {
  return !requires { requires !Estimator::has_correction; };
}
template <class Estimator>
consteval bool has_filter() {
  return !requires { requires !Estimator::has_filter; };
}
template <class Estimator>
consteval bool filters_entropy() {
  return requires(Estimator const& e) {
    requires std::remove_cvref_t<decltype(e.filter)>::filters_entropy;
  };
}

// What an estimator reads of one token, out of memory before it is needed, as a batch of its own.
template <real T>
struct token_entries {
  T old_log_prob{}, rollout_log_prob{}, reference_log_prob{}, advantage{};
  std::uint8_t selected{};

  template <class Estimator>
  LAMINA_HOST_DEVICE LAMINA_INLINE token_entries(Estimator const& estimator,
                                                 policy_batch<T> const& from, index_t token) {
    if constexpr ((Estimator::reads & token_input::old_log_probs) != 0) {
      old_log_prob = from.old_log_probs[token];
    }
    if constexpr ((Estimator::reads & token_input::rollout_log_probs) != 0) {
      rollout_log_prob = from.rollout_log_probs[token];
    }
    if constexpr ((Estimator::reads & token_input::selected) != 0) selected = from.selected[token];
    if (estimator.kl.active()) reference_log_prob = from.reference_log_probs[token];
    advantage = from.advantages.size > 0 ? from.advantages[from.sequence_of(token)]
                                         : from.token_advantages[token];
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE policy_batch<T> batch() const {
    policy_batch<T> own;
    own.old_log_probs = {&old_log_prob, 1};
    own.rollout_log_probs = {&rollout_log_prob, 1};
    own.reference_log_probs = {&reference_log_prob, 1};
    own.selected = {&selected, 1};
    own.advantages = {&advantage, 1};
    return own;
  }
};

// What is known of a pack of tokens before it is evaluated. Mask is mask_of_t<V>, with zeros in the
// lanes that are not usable, or every_lane where nothing is masked and nothing was checked.
template <class V, class Mask>
struct gathered_tokens {
  policy_token<V> token{};
  V k{};
  V probe{};      // not finite as soon as one of the numbers read is not
  Mask active{};  // exist, and the batch's mask is set
  Mask usable{};  // active, and everything that is read is finite
};

// Reads tokens t .. t + count of a sequence. log_prob() and entropy() load what the batch does not
// hold; entropy() is not called unless has_entropies.
template <class V, class Mask, class Estimator, real T, class LogProb, class Entropy>
LAMINA_HOST_DEVICE LAMINA_INLINE gathered_tokens<V, Mask> gather(
    Estimator const& estimator, policy_batch<T> const& batch, index_t sequence, index_t t,
    index_t count, LogProb log_prob, bool has_entropies, Entropy entropy) {
  constexpr bool checked = !std::same_as<Mask, every_lane>;
  token_reader<V, T> const reader{count};
  Mask active{};
  if constexpr (checked) {
    active = count == reader.lanes ? V(0) == V(0) : reader.exists();
    if (batch.mask.size > 0) active = active & reader.flags(batch.mask.data + t);
  }
  V const zero = V(0);
  V l = select(active, log_prob(), zero), o = zero, mu = zero, f = zero, h = zero, a = zero;
  // A sum is not finite as soon as one of its terms is not.
  V probe = l;
  mask_of_t<V> selected = !(zero == zero);
  if constexpr ((Estimator::reads & token_input::old_log_probs) != 0) {
    o = select(active, reader.load(batch.old_log_probs.data + t), zero);
    probe = probe + o;
  }
  if constexpr ((Estimator::reads & token_input::rollout_log_probs) != 0) {
    mu = select(active, reader.load(batch.rollout_log_probs.data + t), zero);
    probe = probe + mu;
  }
  if constexpr ((Estimator::reads & token_input::selected) != 0) {
    selected = reader.flags(batch.selected.data + t);
  }
  if (has_entropies) {
    h = select(active, entropy(), zero);
    if ((Estimator::reads & token_input::entropies) != 0 || estimator.entropy.active()) {
      probe = probe + h;
    } else {  // only averaged: an entropy that is not finite costs its token nothing
      h = select(is_finite(h), h, zero);
    }
  }
  if (estimator.kl.active()) {
    f = select(active, reader.load(batch.reference_log_probs.data + t), zero);
    probe = probe + f;
  }
  if (batch.advantages.size > 0) {
    a = V(static_cast<double>(batch.advantages[sequence]));
  } else {
    a = select(active, reader.load(batch.token_advantages.data + t), zero);
  }
  probe = probe + a;
  Mask usable{};
  if constexpr (checked) {
    mask_of_t<V> const finite = is_finite(probe);
    usable = active & finite;
    l = select(finite, l, zero);
    o = select(finite, o, zero);
    mu = select(finite, mu, zero);
    f = select(finite, f, zero);
    h = select(finite, h, zero);
    a = select(finite, a, zero);
  }
  return {.token = {.log_prob = l,
                    .old_log_prob = o,
                    .rollout_log_prob = mu,
                    .advantage = a,
                    .entropy = h,
                    .selected = selected},
          .k = estimator.kl.active() ? l - f : zero,
          .probe = probe,
          .active = active,
          .usable = usable};
}

// Coefficients of a pack of tokens; 0 where the mask or a number that is not finite says so.
template <class V, class Mask>
struct weighted_tokens {
  V d_log_prob{};
  V d_entropy{};
  Mask usable{};
  bool valid = true;  // false: numbers that are not finite among unchecked ones, redo with checks
};
template <class T, class V, class Mask, policy_estimator Estimator>
LAMINA_HOST_DEVICE LAMINA_INLINE weighted_tokens<V, Mask> weigh(gathered_tokens<V, Mask> const& g,
                                                                token_loss<V> const& loss,
                                                                double weight,
                                                                double entropy_weight,
                                                                bool has_kl) {
  constexpr bool checked = !std::same_as<Mask, every_lane>;
  V const coefficient = V(weight) * loss.d_log_prob;
  V results = loss.policy + coefficient;
  if constexpr (Estimator::coupling != ratio_coupling::own_token) {
    results = results + loss.d_log_ratio;
  }
  if (has_kl) results = results + loss.kl;
  Mask usable = g.usable;
  bool valid = true;
  if constexpr (checked) {
    mask_of_t<V> const finite = is_finite(results);
    usable = usable & finite;
    if constexpr (sizeof(T) < sizeof(scalar_of_t<V>)) {  // it has to fit the type it is stored in
      mask_of_t<V> const fits = !(absolute(coefficient) > V(3.4028234663852886e38));
      usable = usable & fits;
    }
  } else {
    valid = all(is_finite(g.probe + results));
  }
  V entropy_coefficient = V(-entropy_weight);
  if constexpr (filters_entropy<Estimator>()) {
    entropy_coefficient = select(loss.kept, entropy_coefficient, V(0));
  }
  return {.d_log_prob = select(usable, coefficient, V(0)),
          .d_entropy = select(usable, entropy_coefficient, V(0)),
          .usable = usable,
          .valid = valid};
}

// Sum over lanes, in double.
template <class V>
LAMINA_HOST_DEVICE LAMINA_INLINE double total_of(V const& x) {
  if constexpr (std::same_as<V, scalar_of_t<V>>) {
    return static_cast<double>(x);
  } else {
    scalar_of_t<V> lane[V::lanes];
    x.store(lane);
    double sum[V::lanes];
    for (index_t i = 0; i < V::lanes; ++i) sum[i] = static_cast<double>(lane[i]);
    for (index_t half = V::lanes / 2; half > 0; half /= 2) {
      for (index_t i = 0; i < half; ++i) sum[i] += sum[i + half];
    }
    return sum[0];
  }
}
template <class V>
LAMINA_HOST_DEVICE LAMINA_INLINE double least_of(V const& x) {
  if constexpr (std::same_as<V, scalar_of_t<V>>) {
    return static_cast<double>(x);
  } else {
    scalar_of_t<V> lane[V::lanes];
    x.store(lane);
    scalar_of_t<V> least = lane[0];
    for (auto value : lane) least = value < least ? value : least;
    return static_cast<double>(least);
  }
}

// What a sequence's tokens add up to, before weights. In lanes over a block of tokens, in double
// beyond it. Only what an estimator can make differ from a constant is summed.
struct sequence_totals {
  double policy = 0, kl_estimate = 0, entropy = 0, kept_entropy = 0, slope = 0;
  double ratio = 0, correction = 0, effective = 0, effective_square = 0;
  index_t usable = 0, low = 0, high = 0, bounded = 0, kept = 0;

  // f(sum) for those that token_sums adds to.
  template <class Estimator, class F>
  LAMINA_HOST_DEVICE LAMINA_INLINE void for_each(bool has_kl, bool has_entropies, F const& f) {
    f(policy), f(ratio), f(effective_square), f(usable), f(low), f(high), f(bounded);
    if constexpr (has_correction<Estimator>()) f(correction), f(effective);
    if constexpr (Estimator::coupling != ratio_coupling::own_token) f(slope);
    if (has_kl) f(kl_estimate);
    if (has_entropies) {
      f(entropy);
      if constexpr (filters_entropy<Estimator>()) f(kept_entropy);
    }
    if constexpr (has_filter<Estimator>()) f(kept);
  }
};
template <class V, class Estimator>
struct token_sums {
  V policy = V(0), kl_estimate = V(0), entropy = V(0), kept_entropy = V(0), slope = V(0);
  V ratio = V(0), correction = V(0), effective = V(0), effective_square = V(0);
  lane_count<V> usable{}, low{}, high{}, bounded{}, kept{};

  template <class Mask>
  LAMINA_HOST_DEVICE LAMINA_INLINE void add(gathered_tokens<V, Mask> const& g, Mask usable_tokens,
                                            token_loss<V> const& loss, bool has_kl,
                                            bool has_entropies) {
    V const zero = V(0);
    policy = policy + select(usable_tokens, loss.policy, zero);
    V const r = select(usable_tokens, loss.ratio, zero);
    ratio = ratio + r;
    if constexpr (has_correction<Estimator>()) {
      V const v = select(usable_tokens, loss.ratio * loss.correction, zero);
      correction = correction + select(usable_tokens, loss.correction, zero);
      effective = effective + v;
      effective_square = effective_square + v * v;
    } else {
      effective_square = effective_square + r * r;
    }
    if constexpr (Estimator::coupling != ratio_coupling::own_token) {
      slope = slope + select(usable_tokens, loss.d_log_ratio, zero);
    }
    if (has_kl) kl_estimate = kl_estimate + select(usable_tokens, loss.kl_estimate, zero);
    if (has_entropies) {
      entropy = entropy + select(usable_tokens, g.token.entropy, zero);
      if constexpr (filters_entropy<Estimator>()) {
        kept_entropy = kept_entropy + select(usable_tokens & loss.kept, g.token.entropy, zero);
      }
    }
    usable.add(usable_tokens);
    low.add(usable_tokens & loss.clipped_low);
    high.add(usable_tokens & loss.clipped_high);
    bounded.add(usable_tokens & loss.bounded);
    if constexpr (has_filter<Estimator>()) kept.add(usable_tokens & loss.kept);
  }

  LAMINA_HOST_DEVICE LAMINA_INLINE void flush(sequence_totals& totals, bool has_kl,
                                              bool has_entropies) const {
    totals.policy += total_of(policy);
    totals.ratio += total_of(ratio);
    totals.effective_square += total_of(effective_square);
    if constexpr (has_correction<Estimator>()) {
      totals.correction += total_of(correction);
      totals.effective += total_of(effective);
    }
    if constexpr (Estimator::coupling != ratio_coupling::own_token) totals.slope += total_of(slope);
    if (has_kl) totals.kl_estimate += total_of(kl_estimate);
    if (has_entropies) {
      totals.entropy += total_of(entropy);
      if constexpr (filters_entropy<Estimator>()) totals.kept_entropy += total_of(kept_entropy);
    }
    totals.usable += usable.total();
    totals.low += low.total();
    totals.high += high.total();
    totals.bounded += bounded.total();
    if constexpr (has_filter<Estimator>()) totals.kept += kept.total();
  }
};

// Least and most of a number over some tokens.
struct value_range {
  double least = 1e30;
  double most = -1e30;
};

// Range of a number over the usable tokens.
template <class V>
struct token_range {
  V least = V(1e30);
  V most = V(-1e30);

  template <class Mask>
  LAMINA_HOST_DEVICE LAMINA_INLINE void add(Mask usable, V const& x) {
    V const low = select(usable, x, least), high = select(usable, x, most);
    least = select(low < least, low, least);
    most = select(most < high, high, most);
  }
  LAMINA_HOST_DEVICE LAMINA_INLINE value_range total() const {
    return {least_of(least), -least_of(-most)};
  }
};

}  // namespace detail

LAMINA_NAMESPACE_END
