// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ConSPO: the verified rollouts of a prompt against its failed ones, by the likelihood of whole
// answers. Derivation: docs/maths/conspo.md.
#pragma once

#include <cmath>

#include "lamina/policy/detail/advantage_pass.hpp"
#include "lamina/policy/detail/group_totals.hpp"
#include "lamina/policy/log_prob_loss.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

struct label {
  double threshold;
  LAMINA_HOST_DEVICE double operator()(double reward) const {
    return reward > threshold ? 1.0 : -1.0;
  }
};

// Rewards whose groups are flat if all of their labels are equal.
template <real T>
struct labelled_rewards : scored_rewards<T> {
  label of;
  LAMINA_HOST_DEVICE bool flat(group_members members) const {
    index_t verified = 0;
    for (index_t k = 0; k < members.size; ++k) verified += of((*this)(members[k])) > 0 ? 1 : 0;
    return verified == 0 || verified == members.size;
  }
};

}  // namespace detail

/// Labels rewards for a contrastive objective: +1 above the threshold (verified), -1 below or at
/// it.
struct verified_labels {
  static constexpr bool per_token = false;
  double threshold = 0.5;

  /// Reads rewards [rollouts] and groups. advantages [rollouts]: written, +1 or -1; may alias
  /// rewards. Throws shape_error if the sizes differ, config_error for a reward that is not finite.
  template <real T>
  advantage_statistics compute(reward_batch<T> const& batch, vector_view<T> advantages) const {
    reward_arrays<T> const arrays = detail::arrays_of(batch);
    check(arrays, advantages.size);
    for (index_t i = 0; i < batch.rewards.size; ++i) {
      if (!is_finite(batch.rewards[i])) {
        throw_config_error("verified_labels: rewards[", i, "] is ",
                           static_cast<double>(batch.rewards[i]), ", expected a finite number");
      }
    }
    return detail::run_on_host(*this, arrays, advantages);
  }

  /// As those of group_relative.
  template <real T>
  void check(reward_arrays<T> const& batch, index_t advantages) const {
    detail::check_rewards("verified_labels", batch, advantages);
  }
  template <row_executor Executor, real T>
  void run(Executor const& executor, reward_arrays<T> const& batch, vector_view<T> advantages,
           detail::advantage_memory memory) const {
    detail::run_statistics(executor, detail::labelled_rewards<T>{{batch.rewards}, {threshold}},
                           advantages.size, batch.groups, memory.record);
    detail::run_groups(executor, *this, batch, memory.record,
                       detail::final_advantages<T>{advantages});
  }
  /// What a reward of a group becomes.
  template <lane_group Lanes, real T>
  LAMINA_HOST_DEVICE detail::label of_group(Lanes /*lanes*/,
                                            detail::group_rewards<T> const& /*own*/) const {
    return {threshold};
  }
};

/// A margin that grows linearly from `first` to `last` over `steps` optimizer steps and stays
/// there: separation is asked for once the easy pairs are apart.
struct margin_schedule {
  double first = 0;
  double last = 0;
  index_t steps = 1;

  /// Margin of optimizer step `step`, counted from 0.
  double at(index_t step) const noexcept {
    if (steps < 1 || step >= steps) return last;
    return first +
           (last - first) * static_cast<double>(step > 0 ? step : 0) / static_cast<double>(steps);
  }
};

namespace detail {

// The log-likelihood of a sequence.
struct sequence_score {
  double total = 0;
  index_t active = 0;
  index_t usable = 0;  // active tokens whose log-prob is finite

  LAMINA_HOST_DEVICE bool counts() const noexcept { return active > 0 && usable == active; }
  LAMINA_HOST_DEVICE double mean() const noexcept { return total / static_cast<double>(active); }
};

// One group after another, worked by a lane group: coefficients are written, sums are returned. V
// is a number, or on a host a pack of them.
template <class V, class Objective, real T>
struct contrast_pass {
  static constexpr index_t width = token_reader<V, T>::lanes;
  Objective objective;
  T const* log_probs;
  policy_batch<T> batch;
  T const* entropies;  // null: not at hand
  T* d_log_probs;
  T* d_entropies;  // null: not wanted

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE group_totals visit(Lanes lanes, index_t group) const {
    double const temperature = objective.temperature;
    double const per_group =
        batch.denominators.scale() / static_cast<double>(batch.denominators.groups);
    index_t const begin = batch.group_offsets[group], end = batch.group_offsets[group + 1];
    group_totals totals;
    // log sum_N exp(s_j / temperature), with the largest term kept apart.
    double peak = 0, total = 0;
    index_t positives = 0;
    for (index_t i = begin; i < end; ++i) {
      if (batch.advantages[i] > 0) positives += score_of(lanes, i).counts() ? 1 : 0;
      if (!(batch.advantages[i] < 0)) continue;
      sequence_score const score = score_of(lanes, i);
      if (!score.counts()) continue;
      double const x = score.mean() / temperature;
      if (total == 0 || x > peak) {
        total = total == 0 ? 0 : total * std::exp(peak - x);
        peak = x;
      }
      total += std::exp(x - peak);
    }
    bool const contrasted = positives > 0 && total > 0;
    double const opponents = contrasted ? peak + std::log(total) : 0.0;
    double const share = contrasted ? per_group / static_cast<double>(positives) : 0.0;
    // Positives first: a sequence is written once its score is no longer needed, so that
    // d_log_probs may overwrite log_probs.
    double pushed = 0;
    for (index_t i = begin; i < end; ++i) {
      if (!(batch.advantages[i] > 0)) continue;
      sequence_score const score = score_of(lanes, i);
      double coefficient = 0;
      if (contrasted && score.counts()) {
        double const gap = opponents - (score.mean() - objective.margin) / temperature;
        double const lost =
            gap > 0 ? 1.0 / (1.0 + std::exp(-gap)) : std::exp(gap) / (1.0 + std::exp(gap));
        totals.loss +=
            share * (gap > 0 ? gap + std::log1p(std::exp(-gap)) : std::log1p(std::exp(gap)));
        pushed += lost;
        coefficient = -share * lost / temperature / static_cast<double>(score.active);
      }
      write(lanes, i, coefficient, score, totals);
    }
    for (index_t i = begin; i < end; ++i) {
      if (batch.advantages[i] > 0) continue;
      sequence_score const score = score_of(lanes, i);
      double coefficient = 0;
      if (contrasted && score.counts() && batch.advantages[i] < 0) {
        double const fraction = std::exp(score.mean() / temperature - opponents);
        coefficient = share * pushed * fraction / temperature / static_cast<double>(score.active);
      }
      write(lanes, i, coefficient, score, totals);
    }
    totals.entropy = lanes.sum(totals.entropy);
    totals.entropies = lanes.sum(totals.entropies);
    return totals;
  }

 private:
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE sequence_score score_of(Lanes lanes, index_t sequence) const {
    double total = 0, all = 0, finite = 0;
    index_t const end = batch.offsets[sequence + 1], stride = width * lanes.count();
    for (index_t begin = batch.offsets[sequence]; begin < end; begin += 16 * stride) {
      index_t const stop = begin + 16 * stride < end ? begin + 16 * stride : end;
      V sum = V(0), active = V(0), usable = V(0);
      for (index_t t = begin + width * lanes.lane(); t < stop; t += stride) {
        auto const g = tokens(sequence, t, stop - t < width ? stop - t : width);
        sum = sum + g.token.log_prob;
        active = active + select(g.active, V(1), V(0));
        usable = usable + select(g.usable, V(1), V(0));
      }
      total += total_of(sum);
      all += total_of(active);
      finite += total_of(usable);
    }
    return {lanes.sum(total), static_cast<index_t>(lanes.sum(all)),
            static_cast<index_t>(lanes.sum(finite))};
  }
  LAMINA_HOST_DEVICE gathered_tokens<V, mask_of_t<V>> tokens(index_t sequence, index_t t,
                                                             index_t count) const {
    token_reader<V, T> const reader{count};
    return gather<V, mask_of_t<V>>(
        objective, batch, sequence, t, count, [&] { return reader.load(log_probs + t); }, false,
        [] { return V(0); });
  }

  // All active tokens of a sequence get the same coefficient. Sums of entropies are this lane's.
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void write(Lanes lanes, index_t sequence, double coefficient,
                                sequence_score const& score, group_totals& totals) const {
    T const c = static_cast<T>(coefficient);
    index_t const end = batch.offsets[sequence + 1];
    for (index_t t = batch.offsets[sequence] + lanes.lane(); t < end; t += lanes.count()) {
      bool const active = batch.active(t);
      d_log_probs[t] = active ? c : T(0);
      if (d_entropies != nullptr) d_entropies[t] = 0;
      if (entropies == nullptr || !active || !is_finite(entropies[t])) continue;
      totals.entropy += static_cast<double>(entropies[t]);
      totals.entropies += 1;
    }
    totals.active += static_cast<double>(score.active);
    totals.nonfinite += static_cast<double>(score.active - score.usable);
  }
};

}  // namespace detail

/// An InfoNCE objective over the rollouts of a group. With s_i = mean_t log p_it over the active
/// tokens of sequence i, P the sequences with a positive advantage, N those with a negative one:
///
///   loss_i = -log( e^((s_i - margin) / temperature)
///                  / (e^((s_i - margin) / temperature) + sum_N e^(s_j / temperature)) )
///   loss   = W K / groups * sum_groups mean_{i in P} loss_i
///
/// Groups without a positive or without a negative sequence contribute 0 but count in
/// denominators.groups; sequences without active tokens, or with log-probs that are not finite,
/// take no part. Groups must not be cut across calls. The batch brings group_offsets. Source:
/// ConSPO (arXiv:2605.12969); its abstract fixes the scores, the contrast and the scheduled margin,
/// the rest is stated in docs/maths/conspo.md.
struct conspo {
  static constexpr unsigned reads = token_input::nothing;
  static constexpr bool sequence_wide = true;
  static constexpr ratio_coupling coupling = ratio_coupling::sequence_mean;

  verified_labels advantage{};
  double temperature = 1.0;
  double margin = 0.0;
  no_kl kl{};
  no_entropy_bonus entropy{};

  /// Labels of the rollouts as advantages.
  template <real T>
  group_advantages<T> advantages(reward_batch<T> const& batch) const {
    group_advantages<T> result;
    result.values.resize(static_cast<std::size_t>(batch.rewards.size));
    result.statistics = advantage.compute(batch, vector_view<T>(result.values));
    return result;
  }

  void check() const {
    if (!(temperature > 0) || !is_finite(temperature)) {
      throw_config_error("conspo: temperature is ", temperature, ", expected a finite value > 0");
    }
    if (!is_finite(margin)) {
      throw_config_error("conspo: margin is ", margin, ", expected a finite number of nats");
    }
  }
  /// Throws shape_error or config_error where the batch lacks what the objective needs.
  template <real T>
  void check_batch(char const* function, policy_batch<T> const& batch) const {
    vector_view<index_t const> const groups = batch.group_offsets;
    if (groups.size < 1 || groups[0] != 0 || groups[groups.size - 1] != batch.sequence_count()) {
      throw_shape_error(function, ": batch.group_offsets has ", groups.size,
                        " entries; expected [groups + 1] entries from 0 to the ",
                        batch.sequence_count(), " sequences of the batch");
    }
    for (index_t g = 1; g < groups.size; ++g) {
      if (groups[g] < groups[g - 1]) {
        throw_shape_error(function, ": batch.group_offsets[", g, "] is ", groups[g], ", below ",
                          groups[g - 1], " before it; expected ascending offsets");
      }
    }
    check_batch_sizes(function, batch);
  }
  /// What can be said without reading an array.
  template <real T>
  void check_batch_sizes(char const* function, policy_batch<T> const& batch) const {
    if (batch.group_offsets.size < (batch.sequence_count() > 0 ? 2 : 1)) {
      throw_shape_error(function, ": batch.group_offsets has ", batch.group_offsets.size,
                        " entries; expected [groups + 1] entries from 0 to the ",
                        batch.sequence_count(), " sequences of the batch");
    }
    if (batch.advantages.size != batch.sequence_count()) {
      throw_shape_error(function, ": batch.advantages has ", batch.advantages.size,
                        " entries; expected one a sequence, ", batch.sequence_count());
    }
    if (batch.denominators.groups < batch.group_offsets.size - 1) {
      throw_config_error(function, ": denominators.groups is ", batch.denominators.groups,
                         "; expected the groups of the whole step, at least the ",
                         batch.group_offsets.size - 1, " of this batch");
    }
  }

  /// Loss, metrics and coefficients from log-probs; see policy_loss.
  template <real T>
  policy_result reduce(vector_view<T const> log_probs, policy_batch<T> const& batch,
                       vector_view<T const> entropies, vector_view<T> d_log_probs,
                       vector_view<T> d_entropies) const {
    auto const pass = groups_of<pack<T>>(log_probs, batch, entropies, d_log_probs, d_entropies);
    detail::group_totals totals;
    for (index_t g = 0; g + 1 < batch.group_offsets.size; ++g) {
      totals.add(pass.visit(single_lane{}, g));
    }
    return totals.finish();
  }
  /// The same, group by group: pass.visit(lanes, group).
  template <class V, real T>
  detail::contrast_pass<V, conspo, T> groups_of(vector_view<T const> log_probs,
                                                policy_batch<T> const& batch,
                                                vector_view<T const> entropies,
                                                vector_view<T> d_log_probs,
                                                vector_view<T> d_entropies) const {
    return {*this,
            log_probs.data,
            batch,
            entropies.empty() ? nullptr : entropies.data,
            d_log_probs.data,
            d_entropies.empty() ? nullptr : d_entropies.data};
  }
};

static_assert(advantage_rule<verified_labels>);

LAMINA_NAMESPACE_END
