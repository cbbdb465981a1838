// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The weights of a whole model at one moment, to go back to: every run of a sweep starts here.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "lamina/core/error.hpp"
#include "lamina/model/transformer.hpp"

LAMINA_NAMESPACE_BEGIN

/// Copies of all weights, outer parameters included. A model that models restorable_model saves and
/// restores itself, layer by layer; any other has its parameter views copied, which have to be
/// readable by the host.
template <layered_model M>
class model_snapshot {
 public:
  explicit model_snapshot(M& model) {
    if constexpr (restorable_model<M>) {
      for (index_t layer = outside_layers; layer < model_traits<M>::layer_count(model); ++layer) {
        if (layer == outside_layers && !whole_model<M>) continue;
        layers_.push_back(model_traits<M>::save_layer(model, layer));
      }
    } else {
      for (auto const& parameter : all_parameters(model)) {
        layers_.push_back(
            {std::string(parameter.name), {parameter.weight.begin(), parameter.weight.end()}});
      }
    }
  }

  /// Puts the weights back, bit for bit. Throws shape_error, before anything changes, if the model
  /// no longer lists the tensors that were saved.
  void restore(M& model) const {
    if constexpr (restorable_model<M>) {
      std::size_t saved = 0;
      for (index_t layer = outside_layers; layer < model_traits<M>::layer_count(model); ++layer) {
        if (layer == outside_layers && !whole_model<M>) continue;
        model_traits<M>::restore_layer(model, layer, layers_[saved++]);
      }
    } else {
      auto const parameters = all_parameters(model);
      check(parameters);
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        std::copy(layers_[i].weight.begin(), layers_[i].weight.end(), parameters[i].weight.begin());
      }
    }
  }

 private:
  struct named_weight {
    std::string name;
    std::vector<model_scalar_t<M>> weight;
  };

  static auto state_of_one() {
    if constexpr (restorable_model<M>) {
      return decltype(model_traits<M>::save_layer(std::declval<M&>(), index_t{})){};
    } else {
      return named_weight{};
    }
  }

  template <class Parameters>
  void check(Parameters const& parameters) const {
    if (parameters.size() != layers_.size()) {
      throw_shape_error("model_snapshot::restore: the model lists ", parameters.size(),
                        " parameters, the snapshot holds ", layers_.size());
    }
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (parameters[i].name != layers_[i].name ||
          parameters[i].weight.size != static_cast<index_t>(layers_[i].weight.size())) {
        throw_shape_error("model_snapshot::restore: parameter ", i, " is ", parameters[i].name,
                          " with ", parameters[i].weight.size, " elements, the snapshot holds ",
                          layers_[i].name, " with ", layers_[i].weight.size());
      }
    }
  }

  std::vector<decltype(state_of_one())> layers_;
};

LAMINA_NAMESPACE_END
