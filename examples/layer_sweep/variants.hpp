// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The rows of a sweep: which selections are trained, how fast, and what they are compared with.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "examples/layer_sweep/settings.hpp"
#include "lamina/layers/backward_plan.hpp"
#include "lamina/layers/layer_rates.hpp"
#include "lamina/layers/selection_text.hpp"
#include "lamina/layers/tensor_selection_text.hpp"
#include "lamina/study/profile_file.hpp"
#include "lamina/study/sweep.hpp"

namespace layer_sweep {

/// A variant as the study knows it, and what a run needs to train it.
struct training {
  lamina::sweep_variant variant;
  lamina::backward_plan plan;
  lamina::layer_rates rates;
  /// Rewards are shuffled inside each group: nothing can be learned, so nothing should be gained.
  bool shuffled = false;
};

/// What --select says. Throws as parse_selection, and as read_contributions for a profile's file.
inline lamina::parameter_selection selected_by(settings const& s) {
  return lamina::parse_selection(s.select, s.layers, {}, lamina::profile_files{}).by_role();
}

/// The rows in the order of the table. What depends on the profile (top-k, Boost and the shuffled
/// best layer) is chosen when the single layers have been trained.
class variant_list {
 public:
  explicit variant_list(settings const& s) : settings_(s) {
    index_t const n = s.layers;
    add({.name = "base", .kind = lamina::variant_kind::base, .trained = "nothing"},
        lamina::plan_full(n));
    add({.name = "full",
         .kind = lamina::variant_kind::full,
         .trained = everything,
         .learning_rate = s.learning_rate,
         .seeds = first_seeds(s.full_seeds)},
        lamina::plan_full(n));
    if (!s.profile.empty()) {
      for (index_t const layer : coarse_to_fine(lamina::parse_layers(s.profile, n))) {
        add_layer(layer, s.layer_learning_rate);
      }
    }
    if (!s.select.empty()) add_selection(s.select, selected_by(s));
    if (!chooses()) return;
    for (index_t layer = 0; layer < n; ++layer) add_layer(layer, s.layer_learning_rate);
    for (index_t layer = 0; s.second_learning_rate > 0 && layer < n; ++layer) {
      add_layer(layer, s.second_learning_rate);
    }
    add({.name = "head only", .trained = "head", .learning_rate = s.layer_learning_rate},
        lamina::plan_backward(n, lamina::no_layers(), {.head = true}));
    add({.name = "layers only",
         .trained = lamina::to_text(lamina::all_layers(n)),
         .learning_rate = s.learning_rate,
         .notes = "embeddings, final norm and head frozen"},
        lamina::plan_backward(n, lamina::all_layers(n)));
    for (char const* place : {"middle:", "last:"}) {
      std::string const name = std::string(place) + std::to_string(s.selected_count());
      add_selection(name, lamina::parse_layers(name, n));
    }
  }

  /// Whether choose() has something to add: to the whole table, not to a part of it.
  bool chooses() const { return settings_.profile.empty() && settings_.select.empty(); }

  /// A part of the profile is made seed by seed: whenever it is interrupted, it is a profile.
  lamina::sweep_order order() const {
    return settings_.profile.empty() ? lamina::sweep_order::by_variant
                                     : lamina::sweep_order::by_seed;
  }

  /// Runs of the whole table, those that choose() adds included.
  index_t run_count() const {
    settings const& s = settings_;
    auto const rows = static_cast<index_t>(rows_.size());
    return s.bases * (1 + s.full_seeds + s.seeds * (rows - 2 + (chooses() ? chosen_count : 0)));
  }

  /// Adds what depends on the measured profile; to be called once.
  ///
  /// profile  [layers]  C or mean score of every layer: only their order matters
  void choose(std::vector<double> const& profile) {
    settings const& s = settings_;
    index_t const n = s.layers;
    auto const k = std::to_string(s.selected_count());
    lamina::layer_set const top = lamina::top_layers(profile, s.selected_count());
    lamina::layer_set const best = lamina::top_layers(profile, 1);
    add_selection("top:" + k, top);
    add_full("boost top:" + k, lamina::variant_kind::selection,
             "all, " + lamina::to_text(top) + " at twice the rate", lamina::boost(top, 2));
    add_full("boost all", lamina::variant_kind::control, "all, every layer at twice the rate",
             lamina::boost(lamina::all_layers(n), 2));
    add({.name = "shuffled best",
         .kind = lamina::variant_kind::control,
         .trained = lamina::to_text(best) + ", shuffled rewards",
         .learning_rate = s.layer_learning_rate},
        lamina::plan_backward(n, best));
    rows_.back().shuffled = true;
    add_full("shuffled full", lamina::variant_kind::control, "all, shuffled rewards", {});
    rows_.back().shuffled = true;
  }

  std::vector<training> const& rows() const { return rows_; }

  /// The row with this name; it must exist.
  training const& row(std::string const& name) const {
    for (training const& candidate : rows_) {
      if (candidate.variant.name == name) return candidate;
    }
    lamina::throw_config_error("variant_list: no variant is named '", name, "'");
  }

  lamina::sweep_plan plan(std::string journal_settings) const {
    lamina::sweep_plan result;
    for (training const& row : rows_) result.variants.push_back(row.variant);
    result.bases = settings_.bases;
    result.seeds = first_seeds(settings_.seeds);
    result.settings = std::move(journal_settings);
    return result;
  }

 private:
  // The first, the last, then always the layer that is farthest from all before it.
  static std::vector<index_t> coarse_to_fine(lamina::layer_set const& layers) {
    std::vector<index_t> left(layers.begin(), layers.end()), order;
    while (!left.empty()) {
      auto const distance = [&order, &layers](index_t layer) {
        index_t nearest = lamina::max_layers + layers.highest() - layer;  // none yet: the lowest
        for (index_t const taken : order) nearest = (std::min)(nearest, std::abs(layer - taken));
        return nearest;
      };
      auto const next = std::max_element(left.begin(), left.end(), [&](index_t a, index_t b) {
        return distance(a) < distance(b);
      });
      order.push_back(*next);
      left.erase(next);
    }
    return order;
  }

  static constexpr index_t chosen_count = 5;
  static constexpr char const* everything = "embeddings, all layers, final norm, head";

  static std::vector<std::uint64_t> first_seeds(index_t count) {
    std::vector<std::uint64_t> seeds;
    for (index_t seed = 1; seed <= count; ++seed) seeds.push_back(static_cast<std::uint64_t>(seed));
    return seeds;
  }

  void add(lamina::sweep_variant variant, lamina::backward_plan const& plan,
           lamina::layer_rates const& rates = {}) {
    if (variant.kind != lamina::variant_kind::base) variant.steps = settings_.steps;
    rows_.push_back({std::move(variant), plan, rates, false});
  }
  void add_selection(std::string const& name, lamina::parameter_selection const& selection) {
    add({.name = name,
         .trained = lamina::to_text(selection),
         .learning_rate = settings_.layer_learning_rate},
        lamina::plan_backward(settings_.layers, selection));
  }
  void add_selection(std::string const& name, lamina::layer_set const& layers) {
    add_selection(name, lamina::parameter_selection(settings_.layers).add(layers));
  }
  // The second table has names of its own, because one layer has one place in the profile.
  void add_layer(index_t layer, double learning_rate) {
    bool const first = learning_rate == settings_.layer_learning_rate;
    add({.name = std::string("layer:") + std::to_string(layer) + (first ? "" : " fast"),
         .kind = first ? lamina::variant_kind::layer : lamina::variant_kind::selection,
         .layer = first ? layer : lamina::outside_layers,
         .trained = std::to_string(layer),
         .learning_rate = learning_rate},
        lamina::plan_backward(settings_.layers, lamina::single_layer(layer)));
  }
  void add_full(std::string const& name, lamina::variant_kind kind, std::string trained,
                lamina::layer_rates const& rates) {
    add({.name = name,
         .kind = kind,
         .trained = std::move(trained),
         .learning_rate = settings_.learning_rate},
        lamina::plan_full(settings_.layers), rates);
  }

  settings settings_;
  std::vector<training> rows_;
};

}  // namespace layer_sweep
