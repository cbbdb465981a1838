// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The profile over all layers: what each contributed, which is best, and what "best of many" is
// worth.
#pragma once

#include "lamina/study/contribution.hpp"

LAMINA_NAMESPACE_BEGIN

/// The layer with the largest C, and what is left of its C once the choice is paid for.
///
/// The largest of many noisy numbers is too large on average (winner's curse). `corrected` chooses
/// the layer on all folds but one, reads its C on the fold left out, and averages over folds: an
/// estimate, not biased by the choice, of what choosing the best layer this way gives. Folds are
/// bases where there are several, otherwise seeds. It corrects the choice only; the noise of S_full
/// is common to all layers and is in the interval of each.
/// Source: sample splitting as in Andrews, Kitagawa and McCloskey 2024, "Inference on winners".
struct best_layer_estimate {
  index_t layer = -1;
  /// C of that layer as measured.
  double apparent = not_a_number;
  /// NaN with fewer than two folds.
  double corrected = not_a_number;
  index_t fold_count = 0;
  /// Folds in which the choice without the fold is the same layer.
  index_t agreeing_folds = 0;
};

/// How far the order of the layers repeats: Spearman's correlation of the profiles of every pair
/// of bases, or of seeds where there is one base. NaN with fewer than two.
struct rank_agreement_estimate {
  double mean = not_a_number;
  double minimum = not_a_number;
};

/// The contribution profile of a model. A value.
struct contribution_profile {
  contribution_scale scale;
  /// [layers]; a layer that was not trained has NaN everywhere.
  std::vector<contribution> layers;
  best_layer_estimate best;
  rank_agreement_estimate rank_agreement;
  /// What a reader must know about these numbers, a sentence each.
  std::vector<std::string> caveats;

  bool measurable() const noexcept { return scale.measurable(); }
  index_t layer_count() const noexcept { return static_cast<index_t>(layers.size()); }

  /// C of one layer. Throws selection_error outside the profile, measurement_error with the reason
  /// if C was refused or the layer was not trained.
  double contribution_of(index_t layer) const {
    if (layer < 0 || layer >= layer_count()) {
      throw_selection_error("contribution_profile: layer ", layer, " is outside 0..",
                            layer_count() - 1);
    }
    if (!measurable()) throw_measurement_error("contribution_profile: ", scale.refusal());
    double const value = layers[static_cast<std::size_t>(layer)].value;
    if (is_nan(value)) {
      throw_measurement_error("contribution_profile: layer ", layer, " was not trained");
    }
    return value;
  }

  /// C of every layer, NaN where it was not measured: what top_layers and worst_layers take.
  std::vector<double> contributions_by_layer() const {
    std::vector<double> values;
    for (contribution const& layer : layers) values.push_back(layer.value);
    return values;
  }
};

namespace detail {

// C of every layer on every fold, [folds][layers]; NaN for a layer that was not measured.
inline score_table fold_profiles(contribution_scale const& scale,
                                 std::vector<score_table> const& layers,
                                 std::vector<contribution> const& measured) {
  std::size_t const none = static_cast<std::size_t>(-1);
  std::size_t folds = static_cast<std::size_t>(scale.base_count());
  bool const over_seeds = folds == 1;
  if (over_seeds) {
    folds = none;
    for (score_table const& layer : layers) {
      if (!layer.empty()) folds = (std::min)(folds, layer[0].size());
    }
    if (folds == none) folds = 0;
  }
  score_table profiles(folds, std::vector<double>(layers.size(), not_a_number));
  for (std::size_t fold = 0; fold < folds; ++fold) {
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      if (layers[layer].empty()) continue;
      profiles[fold][layer] = over_seeds
                                  ? (layers[layer][0][fold] - scale.base_score()) / scale.gain()
                                  : measured[layer].by_base[fold];
    }
  }
  return profiles;
}

// The layer with the largest sum over folds, the fold `left_out` not counted; -1 if none.
inline index_t best_without(score_table const& profiles, std::size_t left_out) {
  index_t best = -1;
  double best_total = 0;
  for (std::size_t layer = 0; layer < profiles[0].size(); ++layer) {
    double total = 0;
    for (std::size_t fold = 0; fold < profiles.size(); ++fold) {
      if (fold != left_out) total += profiles[fold][layer];
    }
    if (!is_nan(total) && (best < 0 || total > best_total)) {
      best = static_cast<index_t>(layer);
      best_total = total;
    }
  }
  return best;
}

inline best_layer_estimate best_layer(std::vector<contribution> const& measured,
                                      score_table const& profiles) {
  best_layer_estimate best;
  for (std::size_t layer = 0; layer < measured.size(); ++layer) {
    double const value = measured[layer].value;
    if (!is_nan(value) && (best.layer < 0 || value > best.apparent)) {
      best.layer = static_cast<index_t>(layer);
      best.apparent = value;
    }
  }
  if (best.layer < 0 || profiles.size() < 2) return best;
  double total = 0;
  for (std::size_t fold = 0; fold < profiles.size(); ++fold) {
    index_t const chosen = best_without(profiles, fold);
    total += profiles[fold][static_cast<std::size_t>(chosen)];
    if (chosen == best.layer) ++best.agreeing_folds;
  }
  best.fold_count = static_cast<index_t>(profiles.size());
  best.corrected = total / static_cast<double>(best.fold_count);
  return best;
}

inline rank_agreement_estimate rank_agreement(score_table profiles) {
  for (auto& profile : profiles) {
    std::size_t kept = 0;
    for (double value : profile) {
      if (!is_nan(value)) profile[kept++] = value;
    }
    profile.resize(kept);
  }
  rank_agreement_estimate result;
  std::vector<double> correlations;
  for (std::size_t a = 0; a < profiles.size(); ++a) {
    for (std::size_t b = a + 1; b < profiles.size(); ++b) {
      double const correlation = spearman(profiles[a], profiles[b]);
      if (!is_nan(correlation)) correlations.push_back(correlation);
    }
  }
  if (correlations.empty()) return result;
  result.mean = mean(correlations);
  result.minimum = *std::min_element(correlations.begin(), correlations.end());
  return result;
}

inline std::vector<std::string> profile_caveats(contribution_profile const& profile,
                                                std::size_t fold_count) {
  std::vector<std::string> caveats;
  contribution_scale const& scale = profile.scale;
  if (!scale.measurable()) {
    caveats.push_back("No contribution is given: " + scale.refusal() + ".");
    return caveats;
  }
  std::size_t const full_seeds = scale.full_scores()[0].size();
  if (scale.base_count() == 1) {
    if (full_seeds < 2 || fold_count < 2) {
      caveats.push_back(
          "Fewer than two seeds: errors and intervals need at least two, so none are given.");
    }
    caveats.push_back(
        "One pretrained base: errors and intervals hold for this base only; profiles of other "
        "bases of the same kind differ by more.");
  }
  if (profile.best.layer >= 0) {
    caveats.push_back(
        "The C of the best layer is the largest of many noisy numbers and too large on average; "
        "the corrected value chooses on the other " +
        std::string(scale.base_count() > 1 ? "bases" : "seeds") +
        " and reads on the one left out.");
  }
  return caveats;
}

}  // namespace detail

/// The contribution profile from the scores of every layer.
///
/// layers  [layers], each [bases][seeds]; an empty table for a layer that was not trained
/// Throws as contribution_scale does; shape_error if there is no layer.
inline contribution_profile measure_profile(contribution_scale scale,
                                            std::vector<score_table> const& layers) {
  if (layers.empty()) throw_shape_error("measure_profile: layers is empty");
  contribution_profile profile{std::move(scale), {}, {}, {}, {}};
  for (score_table const& layer : layers) {
    profile.layers.push_back(layer.empty() ? contribution{} : profile.scale.measure(layer));
  }
  score_table const folds = detail::fold_profiles(profile.scale, layers, profile.layers);
  if (profile.measurable()) {
    profile.best = detail::best_layer(profile.layers, folds);
    profile.rank_agreement = detail::rank_agreement(folds);
  }
  profile.caveats = detail::profile_caveats(profile, folds.size());
  return profile;
}

LAMINA_NAMESPACE_END
