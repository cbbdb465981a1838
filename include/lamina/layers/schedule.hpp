// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Layer selections that change over time: values that say which layers a step trains, from the step
// and a seed alone, so that a run can be resumed or replayed from any step.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <string_view>
#include <vector>

#include "lamina/core/random.hpp"
#include "lamina/layers/selector.hpp"

LAMINA_NAMESPACE_BEGIN

/// The layers trained at step `step`, from 0. A value: the same for the same step, whatever was
/// asked before.
template <class S>
concept layer_schedule = requires(S const& schedule, index_t step) {
  { schedule.layers_at(step) } -> std::same_as<layer_set>;
};

/// Whether the layers of this step are not those of the step before: where plan, parameter list and
/// optimizer state have to follow. True at step 0.
template <layer_schedule S>
constexpr bool changes_at(S const& schedule, index_t step) {
  return step == 0 || !(schedule.layers_at(step) == schedule.layers_at(step - 1));
}

namespace detail {

constexpr void check_step(std::string_view schedule, index_t step, index_t every) {
  if (step < 0) throw_config_error(schedule, ": step is ", step, ", expected >= 0");
  if (every < 1) throw_config_error(schedule, ": every is ", every, ", expected at least 1 step");
}

constexpr void check_drawn(std::string_view schedule, index_t count, index_t available) {
  if (count < 1 || count > available) {
    throw_config_error(schedule, ": count is ", count, ", expected 1..", available,
                       ", the number of layers to choose from");
  }
}

}  // namespace detail

/// The same layers at every step.
struct fixed_layers {
  layer_set layers;

  /// Throws config_error for a step below 0 or if there are no layers.
  constexpr layer_set layers_at(index_t step) const {
    detail::check_step("fixed_layers", step, 1);
    if (layers.empty()) {
      throw_config_error("fixed_layers: layers is empty, expected at least one layer");
    }
    return layers;
  }
};

/// The next `count` of `layers` every `every` steps, in ascending order and again from the lowest
/// when the highest has been trained.
struct rotating_layers {
  layer_set layers;
  index_t count = 1;
  index_t every = 1;

  /// Throws config_error for a step below 0, every < 1, or count outside 1..layers.size().
  constexpr layer_set layers_at(index_t step) const {
    detail::check_step("rotating_layers", step, every);
    index_t const size = layers.size();
    detail::check_drawn("rotating_layers", count, size);
    // step / every modulo size first, since times count it may overflow.
    index_t const first = step / every % size * count % size;
    layer_set chosen;
    index_t position = 0;
    for (index_t const layer : layers) {
      if ((position - first + size) % size < count) chosen.insert(layer);
      ++position;
    }
    return chosen;
  }
};

/// The sets of a list, one after the other, each for `every` steps, and again from the first.
struct listed_layers {
  std::vector<layer_set> sets;
  index_t every = 1;

  /// Throws config_error for a step below 0, every < 1, or an empty list or set.
  layer_set layers_at(index_t step) const {
    detail::check_step("listed_layers", step, every);
    if (sets.empty()) throw_config_error("listed_layers: sets is empty, expected at least one");
    std::size_t const turn = static_cast<std::size_t>(step / every) % sets.size();
    if (sets[turn].empty()) {
      throw_config_error("listed_layers: set ", turn, " is empty, expected at least one layer");
    }
    return sets[turn];
  }
};

/// `count` of `layers` every `every` steps, each subset as likely as any other.
///
/// In LISA embeddings and head are trained throughout: {.embeddings = true, .head = true} of the
/// plan.
/// Source: Pan et al. 2024, "LISA: Layerwise Importance Sampling for Memory-Efficient Large
/// Language Model Fine-Tuning", algorithm 1.
struct lisa_layers {
  layer_set layers;
  index_t count = 2;
  index_t every = 10;
  std::uint64_t seed = 0;

  /// Throws config_error for a step below 0, every < 1, or count outside 1..layers.size().
  constexpr layer_set layers_at(index_t step) const {
    detail::check_step("lisa_layers", step, every);
    detail::check_drawn("lisa_layers", count, layers.size());
    counter_generator random(seed, static_cast<std::uint64_t>(step / every));
    // Selection sampling: each layer in turn with probability (still wanted) / (still to come).
    // Source: Knuth, The Art of Computer Programming 2, section 3.4.2, algorithm S.
    layer_set chosen;
    index_t wanted = count, left = layers.size();
    for (index_t const layer : layers) {
      if (static_cast<index_t>(random.below(static_cast<std::uint32_t>(left))) < wanted) {
        chosen.insert(layer);
        --wanted;
      }
      --left;
    }
    return chosen;
  }
};

/// `count` layers every `every` steps, drawn without replacement: the next layer is layer k with
/// probability proportional to exp(contributions[k] / temperature) among those left. A higher
/// temperature is closer to LISA, a lower one to the best layers alone.
///
/// contributions  [layers]  of a profile; a layer that was not measured (NaN) is drawn as one of
///                          the mean measured contribution
/// Source: Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir", algorithm A,
/// by the logarithm of its keys: the largest log weight - log(-log u).
struct contribution_weighted_layers {
  std::vector<double> contributions;
  index_t count = 1;
  index_t every = 1;
  double temperature = 1;
  std::uint64_t seed = 0;

  /// Throws config_error for a step below 0, every < 1, count outside 1..contributions.size(), a
  /// temperature that is not finite and positive, no measured layer, more than max_layers or an
  /// infinite contribution.
  layer_set layers_at(index_t step) const {
    auto const size = static_cast<index_t>(contributions.size());
    detail::check_step(name, step, every);
    detail::check_drawn(name, count, size);
    double const mean = checked_mean();
    counter_generator random(seed, static_cast<std::uint64_t>(step / every));
    std::vector<double> keys;
    for (double const contribution : contributions) {
      double const score = is_nan(contribution) ? mean : contribution;
      keys.push_back(score / temperature - std::log(-std::log(random.uniform())));
    }
    return top_layers(keys, count);
  }

 private:
  static constexpr std::string_view name = "contribution_weighted_layers";

  double checked_mean() const {
    auto const size = static_cast<index_t>(contributions.size());
    if (size > max_layers) {
      throw_config_error(name, ": ", size, " contributions, expected at most ", max_layers);
    }
    if (!is_finite(temperature) || temperature <= 0) {
      throw_config_error(name, ": temperature is ", temperature, ", expected finite and > 0");
    }
    double mean = 0;
    index_t measured = 0;
    for (double const contribution : contributions) {
      if (is_nan(contribution)) continue;
      if (!is_finite(contribution / temperature)) {
        throw_config_error(name, ": a contribution is ", contribution,
                           ", expected finite, also divided by the temperature ", temperature,
                           ", or NaN for a layer that was not measured");
      }
      mean += (contribution - mean) / static_cast<double>(++measured);
    }
    if (measured == 0) throw_config_error(name, ": no layer was measured, expected at least one");
    return mean;
  }
};

static_assert(layer_schedule<fixed_layers> && layer_schedule<rotating_layers> &&
              layer_schedule<listed_layers> && layer_schedule<lisa_layers> &&
              layer_schedule<contribution_weighted_layers>);

LAMINA_NAMESPACE_END
