// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The weights of a whole model at one moment, to go back to: every run of a sweep starts here.
#pragma once

#include <vector>

#include "lamina/model/transformer.hpp"
#include "lamina/optim/audit.hpp"

LAMINA_NAMESPACE_BEGIN

/// Copies of all weights, outer parameters included. A model that models restorable_model saves and
/// restores itself, layer by layer; of any other the parameter views are copied, which have to be
/// readable by the host.
template <layered_model M>
class model_snapshot {
 public:
  explicit model_snapshot(M& model) : weights_(all_parameters(model)) {}

  /// Puts the weights back, bit for bit. Throws before anything changes if the model no longer
  /// lists the tensors that were copied.
  void restore(M& model) const { weights_.restore(all_parameters(model)); }

 private:
  weight_snapshot<model_scalar_t<M>> weights_;
};

template <restorable_model M>
class model_snapshot<M> {
 public:
  explicit model_snapshot(M& model) {
    for (index_t layer = first_layer; layer < model_traits<M>::layer_count(model); ++layer) {
      layers_.push_back(model_traits<M>::save_layer(model, layer));
    }
  }

  void restore(M& model) const {
    for (index_t layer = first_layer; layer < model_traits<M>::layer_count(model); ++layer) {
      model_traits<M>::restore_layer(model, layer,
                                     layers_[static_cast<std::size_t>(layer - first_layer)]);
    }
  }

 private:
  static constexpr index_t first_layer = whole_model<M> ? outside_layers : 0;

  std::vector<decltype(model_traits<M>::save_layer(std::declval<M&>(), index_t{}))> layers_;
};

LAMINA_NAMESPACE_END
