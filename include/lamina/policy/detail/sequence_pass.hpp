// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One sequence of a policy loss in the log-prob form, worked by a lane group, and what the
// sequences of a call add up to.
#pragma once

#include <limits>

#include "lamina/core/lanes.hpp"
#include "lamina/policy/detail/token_pack.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Whether an estimator computes packs of T, and otherwise whether it computes in T at all: a host's
// own parts may know double only.
template <class Estimator, class V>
concept evaluates = requires(Estimator const& e, policy_token<V> const& token, V k,
                             sequence_state const& state) {
  { e.evaluate(token, k, state) } -> std::same_as<token_loss<V>>;
};
template <class Estimator, real T>
using number_of = std::conditional_t<evaluates<Estimator, T>, T, double>;
template <class Estimator, real T>
using pack_of = std::conditional_t<evaluates<Estimator, pack<T>>, pack<T>, number_of<Estimator, T>>;

// What every token of a sequence gets on top where coefficients depend on the whole sequence.
template <policy_estimator Estimator>
LAMINA_HOST_DEVICE LAMINA_INLINE double share_of(double weight, index_t active,
                                                 sequence_totals const& sums) {
  double const share = weight * sums.slope;
  bool const mean = Estimator::coupling == ratio_coupling::sequence_mean && active > 0;
  return mean ? share / static_cast<double>(active) : share;
}

// One sequence after another: coefficients are written, sums are returned. V is a number, or on a
// host a pack of them.
template <class V, policy_estimator Estimator, real T>
struct sequence_pass {
  static constexpr index_t lanes = token_reader<V, T>::lanes;
  // A lane sums at most this many terms in its own type.
  static constexpr index_t block = 32 * lanes;
  static constexpr double unusable = std::numeric_limits<double>::infinity();

  Estimator estimator;
  T const* log_probs;
  policy_batch<T> batch;
  T const* entropies;  // null: not at hand
  T* d_log_probs;
  T* d_entropies;  // null: no entropy bonus

  // `active` tokens of the sequence count. The sums are those of all lanes of the group, the ranges
  // those of the caller's lane.
  template <lane_group Group>
  LAMINA_HOST_DEVICE LAMINA_INLINE sequence_totals visit(Group group, index_t sequence,
                                                         index_t active, token_range<V>& ratios,
                                                         token_range<V>& corrections) const {
    double const weight = estimator.aggregation.weight(active, batch.denominators);
    double const entropy_weight = estimator.entropy.weight(active, batch.denominators, weight);
    sequence_state const state = state_of(group, sequence, active);
    sequence_totals sums =
        evaluate(group, sequence, state, weight, entropy_weight, ratios, corrections);
    sums.template for_each<Estimator>(estimator.kl.active(), entropies != nullptr,
                                      [group](auto& sum) { sum = group.sum(sum); });
    if constexpr (Estimator::coupling != ratio_coupling::own_token) {
      add_share(group, sequence, share_of<Estimator>(weight, active, sums));
    }
    return sums;
  }

 private:
  template <class Mask>
  LAMINA_HOST_DEVICE LAMINA_INLINE gathered_tokens<V, Mask> tokens(index_t sequence, index_t t,
                                                                   index_t count) const {
    token_reader<V, T> const reader{count};
    return gather<V, Mask>(
        estimator, batch, sequence, t, count,
        [&]() LAMINA_INLINE_LAMBDA { return reader.load(log_probs + t); }, entropies != nullptr,
        [&]() LAMINA_INLINE_LAMBDA { return reader.load(entropies + t); });
  }

  // Calls step(mask, t, count) for the tokens [begin, end) that belong to this lane of the group:
  // with every_lane where nothing is masked, unless that returns false.
  template <lane_group Group, class Step>
  LAMINA_HOST_DEVICE LAMINA_INLINE void for_each_pack(Group group, index_t begin, index_t end,
                                                      Step const& step) const {
    index_t const stride = lanes * group.count();
    index_t t = begin + lanes * group.lane();
    if constexpr (std::same_as<Group, single_lane>) {
      if (batch.mask.size == 0) {
        while (end - t >= lanes && step(every_lane{}, t, lanes)) t += stride;
      }
    }
    for (; t < end; t += stride) step(mask_of_t<V>{}, t, end - t < lanes ? end - t : lanes);
  }

  template <lane_group Group>
  LAMINA_HOST_DEVICE LAMINA_INLINE sequence_state state_of(Group group, index_t sequence,
                                                           index_t active) const {
    sequence_state state;
    if constexpr (Estimator::sequence_wide) {
      double totals[4] = {0, 0, 0, 0};
      index_t const end = batch.offsets[sequence + 1], step = block * group.count();
      for (index_t begin = batch.offsets[sequence]; begin < end; begin += step) {
        index_t const stop = begin + step < end ? begin + step : end;
        V sums[4] = {V(0), V(0), V(0), V(0)};
        for_each_pack(group, begin, stop,
                      [&]<class Mask>(Mask, index_t t, index_t count) LAMINA_INLINE_LAMBDA {
                        return add_summands<Mask>(sequence, t, count, sums);
                      });
        for (int s = 0; s < 4; ++s) totals[s] += total_of(sums[s]);
      }
      for (int s = 0; s < 4; ++s) totals[s] = group.sum(totals[s]);
      state = {{totals[0], active}, {totals[1], active}, {totals[2], active}, {totals[3], active}};
    }
    return state;
  }

  // False, and nothing done, if unchecked numbers are not finite.
  template <class Mask>
  LAMINA_HOST_DEVICE LAMINA_INLINE bool add_summands(index_t sequence, index_t t, index_t count,
                                                     V (&sums)[4]) const {
    auto const g = tokens<Mask>(sequence, t, count);
    if constexpr (std::same_as<Mask, every_lane>) {
      if (!all(is_finite(g.probe))) return false;
    }
    V terms[4] = {V(0), V(0), V(0), V(0)};
    estimator.summands(g.token, terms);
    for (int s = 0; s < 4; ++s) sums[s] = sums[s] + select(g.usable, terms[s], V(0));
    return true;
  }

  // Sums of this lane.
  template <lane_group Group>
  LAMINA_HOST_DEVICE LAMINA_INLINE sequence_totals evaluate(Group group, index_t sequence,
                                                            sequence_state const& state,
                                                            double weight, double entropy_weight,
                                                            token_range<V>& ratios,
                                                            token_range<V>& corrections) const {
    sequence_totals totals;
    bool const has_kl = estimator.kl.active();
    index_t const end = batch.offsets[sequence + 1], step = block * group.count();
    for (index_t begin = batch.offsets[sequence]; begin < end; begin += step) {
      index_t const stop = begin + step < end ? begin + step : end;
      token_sums<V, Estimator> local;
      auto const visit_pack = [&]<class Mask>(Mask, index_t t, index_t count) LAMINA_INLINE_LAMBDA {
        auto const g = tokens<Mask>(sequence, t, count);
        token_loss<V> const loss = estimator.evaluate(g.token, g.k, state);
        auto const weighted = weigh<T, V, Mask, Estimator>(g, loss, weight, entropy_weight, has_kl);
        if (!weighted.valid) return false;
        token_reader<V, T> const writer{count};
        if constexpr (Estimator::coupling == ratio_coupling::own_token) {
          writer.store(d_log_probs + t, weighted.d_log_prob);
        } else {
          // Marks what add_share has to leave at 0.
          writer.store(d_log_probs + t, select(weighted.usable, weighted.d_log_prob, V(unusable)));
        }
        if (d_entropies != nullptr) writer.store(d_entropies + t, weighted.d_entropy);
        local.add(g, weighted.usable, loss, has_kl, entropies != nullptr);
        ratios.add(weighted.usable, loss.ratio);
        if constexpr (has_correction<Estimator>()) {
          corrections.add(weighted.usable, loss.correction);
        }
        return true;
      };
      for_each_pack(group, begin, stop, visit_pack);
      local.flush(totals, has_kl, entropies != nullptr);
    }
    return totals;
  }

  // Second half of a coefficient that depends on the whole sequence.
  template <lane_group Group>
  LAMINA_HOST_DEVICE LAMINA_INLINE void add_share(Group group, index_t sequence,
                                                  double share) const {
    index_t const end = batch.offsets[sequence + 1], stride = lanes * group.count();
    for (index_t t = batch.offsets[sequence] + lanes * group.lane(); t < end; t += stride) {
      token_reader<V, T> const reader{end - t < lanes ? end - t : lanes};
      V const own = reader.load(d_log_probs + t);
      V const sum = own + V(share);
      mask_of_t<V> const usable = is_finite(own);
      mask_of_t<V> const fits = is_finite(sum);
      reader.store(d_log_probs + t, select(usable & fits, sum, V(0)));
    }
  }
};

// What the sequences of a call add up to, and what is reported of it.
template <policy_estimator Estimator, real T>
struct loss_totals {
  double policy = 0, kl_loss = 0, entropy_loss = 0, active = 0, nonfinite = 0;
  double counted = 0, clipped_low = 0, clipped_high = 0, bounded = 0, filtered = 0, kl = 0;
  double entropy = 0, ratio = 0, correction = 0, effective = 0, effective_square = 0;

  // A sequence with `active_tokens` active tokens.
  LAMINA_HOST_DEVICE LAMINA_INLINE void add(Estimator const& estimator,
                                            loss_denominators const& denominators,
                                            index_t active_tokens, sequence_totals const& sums) {
    double const weight = estimator.aggregation.weight(active_tokens, denominators);
    double const entropy_weight = estimator.entropy.weight(active_tokens, denominators, weight);
    double const usable = static_cast<double>(sums.usable);
    if constexpr (Estimator::coupling != ratio_coupling::own_token) {
      double const share = share_of<Estimator>(weight, active_tokens, sums);
      if (!is_finite(static_cast<T>(share))) nonfinite += usable;
    }
    policy += weight * sums.policy;
    kl_loss += weight * estimator.kl.weight() * sums.kl_estimate;
    entropy_loss -=
        entropy_weight * (filters_entropy<Estimator>() ? sums.kept_entropy : sums.entropy);
    active += static_cast<double>(active_tokens);
    nonfinite += static_cast<double>(active_tokens) - usable;
    // One ratio a sequence is one observation, however many tokens it covers.
    double const unit = Estimator::coupling == ratio_coupling::own_token ? 1.0
                        : active_tokens > 0 ? 1.0 / static_cast<double>(active_tokens)
                                            : 0.0;
    counted += unit * usable;
    clipped_low += unit * static_cast<double>(sums.low);
    clipped_high += unit * static_cast<double>(sums.high);
    bounded += unit * static_cast<double>(sums.bounded);
    if constexpr (has_filter<Estimator>()) {
      filtered += unit * static_cast<double>(sums.usable - sums.kept);
    }
    ratio += unit * sums.ratio;
    correction += unit * sums.correction;
    effective += unit * sums.effective;
    effective_square += unit * sums.effective_square;
    kl += sums.kl_estimate;
    entropy += sums.entropy;
  }

  // Over the lanes of a group that have added different sequences.
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE LAMINA_INLINE void combine(Lanes lanes) {
    auto const add_up = [lanes](double& sum) { sum = lanes.sum(sum); };
    add_up(policy), add_up(kl_loss), add_up(entropy_loss), add_up(active), add_up(nonfinite);
    add_up(counted), add_up(clipped_low), add_up(clipped_high), add_up(bounded), add_up(filtered);
    add_up(kl), add_up(entropy), add_up(ratio), add_up(correction), add_up(effective);
    add_up(effective_square);
  }

  LAMINA_HOST_DEVICE policy_result finish(value_range ratios, value_range corrections) const {
    policy_result result{.loss = policy + kl_loss + entropy_loss,
                         .policy_loss = policy,
                         .kl_loss = kl_loss,
                         .entropy_loss = entropy_loss};
    policy_metrics& metrics = result.metrics;
    metrics.active_tokens = static_cast<index_t>(active);
    metrics.nonfinite_tokens = static_cast<index_t>(nonfinite);
    if (!(counted > 0)) return result;
    metrics.clip_low_fraction = clipped_low / counted;
    metrics.clip_high_fraction = clipped_high / counted;
    metrics.bounded_fraction = bounded / counted;
    metrics.filtered_fraction = filtered / counted;
    metrics.ratio_min = ratios.least;
    metrics.ratio_mean = ratio / counted;
    metrics.ratio_max = ratios.most;
    double weights = ratio;
    if constexpr (has_correction<Estimator>()) {
      metrics.correction_min = corrections.least;
      metrics.correction_mean = correction / counted;
      metrics.correction_max = corrections.most;
      weights = effective;
    }
    metrics.effective_sample_fraction =
        effective_square > 0 ? weights * weights / (counted * effective_square) : 0.0;
    metrics.kl_mean = kl / (active - nonfinite);
    metrics.entropy_mean = entropy / (active - nonfinite);
    return result;
  }
};

}  // namespace detail

LAMINA_NAMESPACE_END
