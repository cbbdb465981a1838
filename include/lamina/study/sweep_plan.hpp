// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a sweep is made of: variants to train, the runs they become, and the scores that come back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lamina/fwd.hpp"
#include "lamina/io/record.hpp"
#include "lamina/study/contribution.hpp"

LAMINA_NAMESPACE_BEGIN

/// What a variant is to the study.
enum class variant_kind : std::uint8_t { base, full, layer, selection, control };

/// "base", "full", "layer", "selection" or "control".
constexpr char const* name_of(variant_kind kind) noexcept {
  switch (kind) {
    case variant_kind::base: return "base";
    case variant_kind::full: return "full";
    case variant_kind::layer: return "layer";
    case variant_kind::selection: return "selection";
    case variant_kind::control: return "control";
  }
  return "";
}

/// One way of training the model. Everything but the seeds is part of what a journal remembers.
struct sweep_variant {
  /// Unique in a plan and stable: finished runs are found by it. "base", "full", "layer:3",
  /// "middle:3".
  std::string name;
  variant_kind kind = variant_kind::selection;
  /// The layer of kind layer, else outside_layers.
  index_t layer = outside_layers;
  /// What is trained, in words or in the text form of selections.
  std::string trained{};
  /// NaN where there is none.
  double learning_rate = not_a_number;
  /// Training steps, the budget; 0 where nothing is trained.
  index_t steps = 0;
  std::string notes{};
  /// Seeds of this variant where they are not the plan's. A base variant without seeds of its own
  /// is scored once per base, with seed 0.
  std::vector<std::uint64_t> seeds{};
};

/// The runs to make: every variant on every base for every seed.
struct sweep_plan {
  std::vector<sweep_variant> variants;
  /// Number of independently pretrained bases.
  index_t bases = 1;
  std::vector<std::uint64_t> seeds{};
  /// Canonical text of everything that determines the results and is not in a variant. A journal
  /// written under other settings is refused.
  std::string settings{};
};

/// One training to do. Runs of the same seed share it across variants: draw prompts and sampling
/// noise from it and the comparison is made on common random numbers.
struct sweep_run {
  index_t base = 0;
  std::uint64_t seed = 0;
  sweep_variant variant;

  /// "base 0, layer:3, seed 1".
  std::string name() const {
    return detail::join("base ", base, ", ", variant.name, ", seed ", seed);
  }
};

/// A number a run reports besides its score.
struct named_number {
  std::string name;
  double value = 0;

  friend bool operator==(named_number const&, named_number const&) = default;
};

/// What a run returns. Everything in it must be the same when the run is repeated: times do not
/// belong here, run_sweep takes them itself.
struct run_scores {
  double score = 0;
  std::vector<named_number> extras{};
};

/// A finished run.
struct run_result {
  index_t base = 0;
  /// Index into the plan's variants.
  index_t variant = 0;
  std::uint64_t seed = 0;
  double score = 0;
  std::vector<named_number> extras;
  /// Wall-clock time. Differs from run to run: keep it out of what must be reproducible.
  double seconds = 0;
};

/// All finished runs, in plan order: variants, in each bases, in each seeds.
struct sweep_results {
  sweep_plan plan;
  std::vector<run_result> runs;

  /// Scores of a variant, [bases][seeds], as contributions take them.
  score_table scores(index_t variant) const {
    return table(variant, [](run_result const& run) { return run.score; });
  }
  /// An extra of a variant, [bases][seeds]; NaN where a run did not report it.
  score_table extras(index_t variant, std::string_view name) const {
    return table(variant, [&](run_result const& run) {
      for (named_number const& extra : run.extras) {
        if (extra.name == name) return extra.value;
      }
      return not_a_number;
    });
  }
  /// The variant with this name. Throws config_error if there is none.
  index_t variant_named(std::string_view name) const {
    for (std::size_t v = 0; v < plan.variants.size(); ++v) {
      if (plan.variants[v].name == name) return static_cast<index_t>(v);
    }
    throw_config_error("sweep_results: no variant is named '", name, "'");
  }
  /// The first variant of this kind, -1 if there is none.
  index_t variant_of(variant_kind kind) const {
    for (std::size_t v = 0; v < plan.variants.size(); ++v) {
      if (plan.variants[v].kind == kind) return static_cast<index_t>(v);
    }
    return -1;
  }

 private:
  template <class Value>
  score_table table(index_t variant, Value const& value) const {
    score_table result(static_cast<std::size_t>(plan.bases));
    for (run_result const& run : runs) {
      if (run.variant == variant) {
        result[static_cast<std::size_t>(run.base)].push_back(value(run));
      }
    }
    return result;
  }
};

/// The contribution scale of a sweep: its variants of kind base and full. Throws config_error if
/// one of them is missing.
inline contribution_scale scale_of(sweep_results const& results,
                                   contribution_options options = {}) {
  index_t const base = results.variant_of(variant_kind::base);
  index_t const full = results.variant_of(variant_kind::full);
  if (base < 0 || full < 0) {
    throw_config_error("scale_of: the sweep has no variant of kind ", base < 0 ? "base" : "full",
                       "; both are needed for a contribution");
  }
  return {results.scores(base), results.scores(full), options};
}

namespace detail {

// The runs of a plan in order, scores still empty.
inline std::vector<run_result> runs_of(sweep_plan const& plan) {
  std::vector<run_result> runs;
  for (std::size_t v = 0; v < plan.variants.size(); ++v) {
    sweep_variant const& variant = plan.variants[v];
    std::vector<std::uint64_t> seeds = variant.seeds;
    if (seeds.empty() && variant.kind == variant_kind::base) seeds = {0};
    if (seeds.empty()) seeds = plan.seeds;
    for (index_t base = 0; base < plan.bases; ++base) {
      for (std::uint64_t seed : seeds) {
        runs.push_back({base, static_cast<index_t>(v), seed, 0, {}, 0});
      }
    }
  }
  return runs;
}

// [runs] which seed of its variant and base a run is: 0 for the first.
inline std::vector<index_t> seed_places(std::vector<run_result> const& runs) {
  std::vector<index_t> places;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    bool const follows =
        i > 0 && runs[i - 1].variant == runs[i].variant && runs[i - 1].base == runs[i].base;
    places.push_back(follows ? places.back() + 1 : 0);
  }
  return places;
}

inline void check_seeds(std::string const& owner, std::vector<std::uint64_t> const& seeds) {
  for (std::size_t b = 0; b < seeds.size(); ++b) {
    for (std::size_t a = 0; a < b; ++a) {
      if (seeds[a] == seeds[b]) {
        throw_config_error("run_sweep: ", owner, " names seed ", seeds[a], " twice");
      }
    }
  }
}

inline void check_plan(sweep_plan const& plan) {
  if (plan.variants.empty()) throw_config_error("run_sweep: the plan has no variants");
  if (plan.bases < 1) {
    throw_config_error("run_sweep: bases is ", plan.bases, ", expected at least 1");
  }
  check_seeds("the plan", plan.seeds);
  for (std::size_t v = 0; v < plan.variants.size(); ++v) {
    sweep_variant const& variant = plan.variants[v];
    if (variant.name.empty()) throw_config_error("run_sweep: variant ", v, " has no name");
    check_seeds("variant '" + variant.name + "'", variant.seeds);
    if (plan.seeds.empty() && variant.seeds.empty() && variant.kind != variant_kind::base) {
      throw_config_error("run_sweep: variant '", variant.name, "' has no seeds, nor has the plan");
    }
    for (std::size_t earlier = 0; earlier < v; ++earlier) {
      if (plan.variants[earlier].name == variant.name) {
        throw_config_error("run_sweep: two variants are named '", variant.name, "'");
      }
    }
  }
}

// Everything that makes two variants of one name the same training.
inline std::string definition_of(sweep_variant const& variant) {
  return join(name_of(variant.kind), ", layer ", variant.layer, ", trains '", variant.trained,
              "', learning rate ", exact_text(variant.learning_rate), ", ", variant.steps,
              " steps, notes '", variant.notes, "'");
}

}  // namespace detail

LAMINA_NAMESPACE_END
