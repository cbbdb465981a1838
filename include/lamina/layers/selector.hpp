// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Ways to name layers: by index, by position in the model, by measured contribution.
#pragma once

#include <string_view>

#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"
#include "lamina/layers/layer_set.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Who is selecting, for messages: a function, and the item of a text it works on where there is
// one.
struct selection_source {
  std::string_view function;
  std::string_view item{};
  std::string_view text{};

  // "first_layers: ..." or "parse_layers: \"first:0\" in \"3,first:0\": ...".
  template <class... Parts>
  [[noreturn]] void fail(Parts const&... parts) const {
    if (text.empty()) throw_selection_error(function, ": ", parts...);
    throw_selection_error(function, ": \"", item, "\" in \"", text, "\": ", parts...);
  }
};

constexpr void check_layer_count(std::string_view function, index_t layer_count) {
  if (layer_count < 1 || layer_count > max_layers) {
    throw_config_error(function, ": layer_count is ", layer_count, ", expected 1..", max_layers);
  }
}

constexpr void check_selected_count(selection_source source, index_t layer_count, index_t k) {
  if (k < 1 || k > layer_count) {
    source.fail("k is ", k, ", expected 1..", layer_count, ", the number of layers");
  }
}

// Layers [first, last]; the caller has checked the bounds.
constexpr layer_set consecutive(index_t first, index_t last) {
  layer_set layers;
  for (index_t layer = first; layer <= last; ++layer) layers.insert(layer);
  return layers;
}

constexpr layer_set select_range(selection_source source, index_t layer_count, index_t first,
                                 index_t last) {
  for (index_t const layer : {first, last}) {
    if (layer < 0 || layer >= layer_count) {
      source.fail("layer ", layer, " does not exist, expected 0..", layer_count - 1);
    }
  }
  if (first > last) {
    source.fail("the range ", first, "-", last, " is reversed, expected first <= last");
  }
  return consecutive(first, last);
}

constexpr layer_set select_first(selection_source source, index_t layer_count, index_t k) {
  check_selected_count(source, layer_count, k);
  return consecutive(0, k - 1);
}

constexpr layer_set select_last(selection_source source, index_t layer_count, index_t k) {
  check_selected_count(source, layer_count, k);
  return consecutive(layer_count - k, layer_count - 1);
}

constexpr layer_set select_middle(selection_source source, index_t layer_count, index_t k) {
  check_selected_count(source, layer_count, k);
  index_t const first = (layer_count - k) / 2;
  return consecutive(first, first + k - 1);
}

constexpr layer_set select_every(selection_source source, index_t layer_count, index_t n,
                                 index_t offset) {
  if (n < 1 || n > layer_count) {
    source.fail("the step is ", n, ", expected 1..", layer_count, ", the number of layers");
  }
  if (offset < 0 || offset >= layer_count) {
    source.fail("the offset is ", offset, ", expected a layer of 0..", layer_count - 1);
  }
  layer_set layers;
  for (index_t layer = offset; layer < layer_count; layer += n) layers.insert(layer);
  return layers;
}

// The k layers with the largest (direction 1) or smallest (-1) measured contribution.
constexpr layer_set select_ranked(selection_source source, vector_view<double const> profile,
                                  index_t k, int direction) {
  if (profile.size > max_layers) {
    source.fail("the profile has ", profile.size, " layers, expected at most ", max_layers);
  }
  index_t measured = 0;
  for (index_t layer = 0; layer < profile.size; ++layer) {
    if (is_nan(profile[layer])) continue;
    if (!is_finite(profile[layer])) {
      source.fail("the profile of layer ", layer,
                  " is infinite, expected a finite contribution, or NaN for a layer that was not "
                  "measured");
    }
    ++measured;
  }
  if (k < 1) source.fail("k is ", k, ", expected at least 1");
  if (k > measured) {
    source.fail("k is ", k, ", but the profile has ", measured, " measured layers of ",
                profile.size);
  }
  layer_set chosen;
  for (index_t rank = 0; rank < k; ++rank) {
    index_t best = -1;
    for (index_t layer = 0; layer < profile.size; ++layer) {
      if (is_nan(profile[layer]) || chosen.contains(layer)) continue;
      // Strictly better only, so that a tie goes to the lower layer.
      if (best < 0 || direction * profile[layer] > direction * profile[best]) best = layer;
    }
    chosen.insert(best);
  }
  return chosen;
}

constexpr layer_set complement_of(selection_source source, layer_set const& layers,
                                  index_t layer_count) {
  if (layers.highest() >= layer_count) {
    source.fail("layer ", layers.highest(), " does not exist, expected 0..", layer_count - 1);
  }
  return consecutive(0, layer_count - 1) - layers;
}

}  // namespace detail

/// One layer. Throws selection_error outside [0, max_layers).
constexpr layer_set single_layer(index_t layer) {
  return detail::select_range({"single_layer"}, max_layers, layer, layer);
}

/// Layers first..last, both included. Throws selection_error if the range is reversed or leaves
/// [0, max_layers).
constexpr layer_set layer_range(index_t first, index_t last) {
  return detail::select_range({"layer_range"}, max_layers, first, last);
}

/// Every layer of a model with `layer_count` layers. Throws config_error unless
/// 1 <= layer_count <= max_layers, as do all functions here that take a layer count.
constexpr layer_set all_layers(index_t layer_count) {
  detail::check_layer_count("all_layers", layer_count);
  return detail::consecutive(0, layer_count - 1);
}

/// The empty set: for plans that train only embeddings, final norm or head.
constexpr layer_set no_layers() noexcept { return {}; }

/// The k layers next to the embeddings. Throws selection_error unless 1 <= k <= layer_count.
constexpr layer_set first_layers(index_t layer_count, index_t k) {
  detail::check_layer_count("first_layers", layer_count);
  return detail::select_first({"first_layers"}, layer_count, k);
}

/// The k layers next to the head. Throws selection_error unless 1 <= k <= layer_count.
constexpr layer_set last_layers(index_t layer_count, index_t k) {
  detail::check_layer_count("last_layers", layer_count);
  return detail::select_last({"last_layers"}, layer_count, k);
}

/// The k layers in the middle: [floor(L/2 - k/2), floor(L/2 + k/2)) with L layers and real
/// division, so that 28 layers and k = 5 give 11..15.
///
/// Throws selection_error unless 1 <= k <= layer_count.
/// Source: the Mid-k rule of the layer-contribution paper.
constexpr layer_set middle_layers(index_t layer_count, index_t k) {
  detail::check_layer_count("middle_layers", layer_count);
  return detail::select_middle({"middle_layers"}, layer_count, k);
}

/// Layers offset, offset + n, offset + 2n, ... below layer_count. Throws selection_error unless
/// 1 <= n <= layer_count and offset is one of the layers.
constexpr layer_set every_layer(index_t layer_count, index_t n, index_t offset = 0) {
  detail::check_layer_count("every_layer", layer_count);
  return detail::select_every({"every_layer"}, layer_count, n, offset);
}

/// The k layers that contribute most.
///
/// profile  [layers]  contribution of each layer; NaN where it was not measured
/// Equal contributions: the lower layer first. Throws selection_error if fewer than k layers are
/// measured, k < 1, or a contribution is infinite.
constexpr layer_set top_layers(vector_view<double const> profile, index_t k) {
  return detail::select_ranked({"top_layers"}, profile, k, 1);
}

/// The k layers that contribute least; otherwise as top_layers.
constexpr layer_set worst_layers(vector_view<double const> profile, index_t k) {
  return detail::select_ranked({"worst_layers"}, profile, k, -1);
}

/// The layers of the model that are not in `layers`. Throws selection_error if `layers` holds one
/// that the model does not have.
constexpr layer_set complement(layer_set const& layers, index_t layer_count) {
  detail::check_layer_count("complement", layer_count);
  return detail::complement_of({"complement"}, layers, layer_count);
}

LAMINA_NAMESPACE_END
