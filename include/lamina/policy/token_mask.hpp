// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Edits of a mask before the loss: tokens that leave the batch with their share of the
// denominators. (filter.hpp has what leaves the policy term only.)
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "lamina/policy/correction.hpp"
#include "lamina/policy/divergence.hpp"
#include "lamina/policy/reward_batch.hpp"

LAMINA_NAMESPACE_BEGIN

/// What an edit of a mask changed. Denominators are to be those of the edited mask: take
/// removed_tokens of all ranks out of loss_denominators::tokens, or count again (denominators_of).
/// A sequence without active tokens still counts in loss_denominators::sequences, unless the edit
/// says otherwise.
struct mask_edit {
  index_t kept_tokens = 0;
  index_t removed_tokens = 0;
  index_t removed_sequences = 0;  ///< had active tokens and have none left
};

namespace detail {

inline void check_editable(char const* function, vector_view<index_t const> offsets,
                           vector_view<std::uint8_t> mask) {
  check_offsets(function, "offsets", offsets, "sequences");
  index_t const tokens = offsets[offsets.size - 1];
  if (mask.size != tokens) {
    throw_shape_error(function, ": mask has ", mask.size, " entries, the offsets hold ", tokens,
                      " tokens; expected one a token (an empty mask cannot be edited)");
  }
}

// Clears the mask where keeper_of(sequence)(token) is false. Only active tokens are asked about.
template <class Keeper>
mask_edit edit_mask(vector_view<index_t const> offsets, vector_view<std::uint8_t> mask,
                    Keeper const& keeper_of) {
  mask_edit edit;
  for (index_t i = 0; i + 1 < offsets.size; ++i) {
    auto const keeps = keeper_of(i);
    index_t kept = 0, removed = 0;
    for (index_t t = offsets[i]; t < offsets[i + 1]; ++t) {
      if (mask[t] == 0) continue;
      bool const keep = keeps(t);
      mask[t] = keep ? mask[t] : std::uint8_t{0};
      kept += keep ? 1 : 0;
      removed += keep ? 0 : 1;
    }
    edit.kept_tokens += kept;
    edit.removed_tokens += removed;
    edit.removed_sequences += removed > 0 && kept == 0 ? 1 : 0;
  }
  return edit;
}

}  // namespace detail

/// Masks sequences that were cut off at the length limit: their reward says little about their
/// tokens. It still counts in the statistics of its group.
///
/// offsets    [sequences + 1]
/// truncated  [sequences]  1 = the last token ends no answer
/// mask       [tokens]     in and out
/// Changes the denominators: the tokens leave, the sequences stay. Throws shape_error, naming what
/// does not fit, before anything is written. Source: Yu et al. 2025 (DAPO, arXiv:2503.14476),
/// section 3.4; TRL's mask_truncated_completions.
inline mask_edit mask_overlong(vector_view<index_t const> offsets,
                               vector_view<std::uint8_t const> truncated,
                               vector_view<std::uint8_t> mask) {
  detail::check_editable("mask_overlong", offsets, mask);
  if (truncated.size != offsets.size - 1) {
    throw_shape_error("mask_overlong: truncated has ", truncated.size, " entries, expected ",
                      offsets.size - 1, ", one a sequence");
  }
  return detail::edit_mask(offsets, mask, [truncated](index_t i) {
    return [whole = truncated[i] == 0](index_t) { return whole; };
  });
}

/// Masks the rollouts of groups whose rewards are all equal: they have no advantage to learn from.
/// A group of one stays. Equal is equal to the bit, so groups with spread zero up to rounding stay
/// too.
///
/// batch  reads rewards [rollouts], groups and offsets [rollouts + 1]
/// mask   [tokens]  in and out
/// Changes the denominators. Where, as in DAPO's dynamic sampling, other prompts take the place of
/// these, removed_sequences leave loss_denominators::sequences too. Throws shape_error where sizes
/// differ and config_error for a reward that is not finite, before anything is written. Source: Yu
/// et al. 2025 (DAPO, arXiv:2503.14476), section 3.2.
template <real T>
mask_edit mask_zero_spread_groups(reward_batch<T> const& batch, vector_view<std::uint8_t> mask) {
  char const* const name = "mask_zero_spread_groups";
  detail::check_editable(name, batch.offsets, mask);
  index_t const rollouts = batch.offsets.size - 1;
  if (batch.rewards.size != rollouts || batch.groups.rollout_count() != rollouts) {
    throw_shape_error(name, ": rewards has ", batch.rewards.size, " entries, the groups hold ",
                      batch.groups.rollout_count(), " rollouts, the offsets ", rollouts,
                      "; expected three equal counts");
  }
  for (index_t i = 0; i < rollouts; ++i) {
    if (!is_finite(batch.rewards[i])) {
      throw_config_error(name, ": rewards[", i, "] is ", static_cast<double>(batch.rewards[i]),
                         ", expected a finite number");
    }
  }
  std::vector<std::uint8_t> flat(static_cast<std::size_t>(rollouts));
  for (index_t g = 0; g < batch.groups.group_count(); ++g) {
    vector_view<index_t const> const members = batch.groups.rollouts(g);
    bool equal = members.size > 1;
    for (index_t i : members) equal = equal && batch.rewards[i] == batch.rewards[members[0]];
    for (index_t i : members) flat[static_cast<std::size_t>(i)] = equal ? 1 : 0;
  }
  return detail::edit_mask(batch.offsets, mask, [&flat](index_t i) {
    return [keeps = flat[static_cast<std::size_t>(i)] == 0](index_t) { return keeps; };
  });
}

/// Every token of a sequence by itself: one out of bounds rejects all of them.
struct sequence_max_level {};

/// Which tokens or sequences are too far from what the sampler saw. The measure is an estimate of
/// KL(sampler | old policy), k = log pi_sampler - log pi_old, of a token (token_level), or its sum
/// (sequence_level), mean (sequence_mean_level) or each of its terms (sequence_max_level) over the
/// active tokens of a sequence.
///
/// kl_k1: low and high bound the ratio rho = exp(-k1) = pi_old / pi_sampler itself. Other
/// estimators: they bound the estimate. Closed intervals; a measure on a bound, to the rounding of
/// log-probs, is inside. verl (to 0.9 at least) compares -log rho with the logarithms of its bounds
/// for k1, so what it calls "low_high" is here low = 1 / high, high = 1 / low.
template <class Level = token_level, kl_estimator Estimator = kl_k1>
struct rollout_rejection {
  static constexpr bool bounds_ratio = std::same_as<Estimator, kl_k1>;
  double low = 0;
  double high = 0;  ///< has to be set
  Estimator estimator{};

  /// The estimate at one token; log_rho = log pi_old - log pi_sampler.
  double measure(double log_rho) const {
    if constexpr (bounds_ratio) {
      return -log_rho;
    } else {
      return estimator.at(-clamp(log_rho, -log_ratio_limit, log_ratio_limit)).value;
    }
  }
  /// Whether a measure is inside. T is the type of the log-probs it comes from.
  template <real T>
  bool inside(double measured) const {
    if (!is_finite(measured)) return false;
    double const bounded =
        bounds_ratio ? std::exp(clamp(-measured, -log_ratio_limit, log_ratio_limit)) : measured;
    constexpr double slack = 16.0 * static_cast<double>(std::numeric_limits<T>::epsilon());
    return bounded >= low * (1.0 - slack) && bounded <= high * (1.0 + slack);
  }
  void check() const {
    if (!(low >= 0) || !(high > 0) || !(low <= high) || !is_finite(high)) {
      throw_config_error("rollout_rejection: low is ", low, " and high ", high,
                         ", expected 0 <= low <= high, high finite and > 0");
    }
  }
};

/// Masks the tokens, or the whole sequences, that a rule rejects. A log-prob that is not finite is
/// out of every bound.
///
/// offsets            [sequences + 1]
/// old_log_probs      [tokens]  as the trainer computes them, and
/// rollout_log_probs  [tokens]  as the sampler reported them; not read where the mask is 0
/// mask               [tokens]  in and out
/// Changes the denominators: the tokens leave, the sequences stay. (importance_correction with
/// mask_weight is the same without that.) Throws shape_error or config_error, naming what does not
/// fit, before anything is written. Source: verl's rollout rejection sampling.
template <real T, class Level, class Estimator>
mask_edit reject_rollouts(rollout_rejection<Level, Estimator> const& rule,
                          vector_view<index_t const> offsets, vector_view<T const> old_log_probs,
                          vector_view<std::type_identity_t<T> const> rollout_log_probs,
                          vector_view<std::uint8_t> mask) {
  rule.check();
  detail::check_editable("reject_rollouts", offsets, mask);
  if (old_log_probs.size != mask.size || rollout_log_probs.size != mask.size) {
    throw_shape_error("reject_rollouts: old_log_probs has ", old_log_probs.size,
                      " and rollout_log_probs ", rollout_log_probs.size, " entries, expected ",
                      mask.size, ", one a token");
  }
  auto const measured = [&](index_t t) {
    double const log_rho =
        static_cast<double>(old_log_probs[t]) - static_cast<double>(rollout_log_probs[t]);
    return is_finite(log_rho) ? rule.measure(log_rho) : std::numeric_limits<double>::infinity();
  };
  return detail::edit_mask(offsets, mask, [&](index_t i) {
    if constexpr (std::same_as<Level, token_level>) {
      return [&](index_t t) { return rule.template inside<T>(measured(t)); };
    } else {
      sequence_sum sum;
      bool keeps = true;
      for (index_t t = offsets[i]; t < offsets[i + 1]; ++t) {
        if (mask[t] == 0) continue;
        double const x = measured(t);
        sum.total += x;
        ++sum.active_tokens;
        if (std::same_as<Level, sequence_max_level>) keeps = keeps && rule.template inside<T>(x);
      }
      if (std::same_as<Level, sequence_level>) keeps = rule.template inside<T>(sum.total);
      if (std::same_as<Level, sequence_mean_level>) keeps = rule.template inside<T>(sum.mean());
      return [keeps](index_t) { return keeps; };
    }
  });
}

LAMINA_NAMESPACE_END
