// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Per-layer learning-rate multipliers: Boost trains everything and some layers faster.
#pragma once

#include <string_view>

#include "lamina/core/scalar.hpp"
#include "lamina/fwd.hpp"
#include "lamina/layers/layer_set.hpp"

LAMINA_NAMESPACE_BEGIN

/// A multiplier for every layer and one for what lies outside the layers; 1 until said otherwise.
/// A value, usable in constant expressions; it knows no model. The learning rate of a tensor is the
/// base rate times rates(layer).
class layer_rates {
 public:
  constexpr layer_rates() noexcept {
    for (double& multiplier : multipliers_) multiplier = 1.0;
  }

  /// The multiplier of a layer, or of everything outside the layers for outside_layers.
  /// Throws selection_error for an index that can be neither.
  constexpr double operator()(index_t layer) const {
    if (layer < outside_layers || layer >= max_layers) {
      throw_selection_error("layer_rates: layer is ", layer, ", expected 0..", max_layers - 1,
                            ", or outside_layers (", outside_layers, ")");
    }
    return multipliers_[slot(layer)];
  }

  /// Multiplies the rates of `layers`. Throws config_error if the multiplier is negative or not
  /// finite, or a product overflows; nothing has changed then.
  constexpr layer_rates& scale(layer_set const& layers, double multiplier) {
    check_multiplier("layer_rates::scale", multiplier);
    for (index_t const layer : layers) check_product(layer, multiplier);
    for (index_t const layer : layers) multipliers_[slot(layer)] *= multiplier;
    return *this;
  }

  /// Multiplies the rate of embeddings, final norm and head; otherwise as scale.
  constexpr layer_rates& scale_outside(double multiplier) {
    check_multiplier("layer_rates::scale_outside", multiplier);
    check_product(outside_layers, multiplier);
    multipliers_[slot(outside_layers)] *= multiplier;
    return *this;
  }

  /// Both, one after the other: the multipliers' products. Throws config_error if one overflows.
  friend constexpr layer_rates operator*(layer_rates a, layer_rates const& b) {
    for (index_t layer = outside_layers; layer < max_layers; ++layer) {
      a.check_product(layer, b(layer));
      a.multipliers_[slot(layer)] *= b(layer);
    }
    return a;
  }

  friend constexpr bool operator==(layer_rates const& a, layer_rates const& b) noexcept {
    for (index_t layer = outside_layers; layer < max_layers; ++layer) {
      if (a.multipliers_[slot(layer)] != b.multipliers_[slot(layer)]) return false;
    }
    return true;
  }

 private:
  static constexpr index_t slot(index_t layer) noexcept { return layer - outside_layers; }

  static constexpr void check_multiplier(std::string_view function, double multiplier) {
    if (!is_finite(multiplier) || multiplier < 0) {
      throw_config_error(function, ": multiplier is ", multiplier, ", expected finite and >= 0");
    }
  }

  constexpr void check_product(index_t layer, double multiplier) const {
    if (!is_finite(multipliers_[slot(layer)] * multiplier)) {
      throw_config_error("layer_rates: the rate of layer ", layer, " is ",
                         multipliers_[slot(layer)], ", times ", multiplier, " it is not finite");
    }
  }

  double multipliers_[max_layers - outside_layers] = {};
};

/// Rates that train `layers` at `multiplier` times the base learning rate and the rest at the base
/// rate. Compose with *. Throws config_error if the multiplier is negative or not finite.
/// The control of a boost is the same multiplier on every layer: boost(all_layers(n), multiplier).
constexpr layer_rates boost(layer_set const& layers, double multiplier) {
  return layer_rates{}.scale(layers, multiplier);
}

/// Rates that train embeddings, final norm and head at `multiplier` times the base learning rate;
/// otherwise as boost.
constexpr layer_rates boost_outside(double multiplier) {
  return layer_rates{}.scale_outside(multiplier);
}

LAMINA_NAMESPACE_END
