// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A host with a few tensors, and all that an optimizer remembers of them.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "lamina/core/parameter.hpp"
#include "lamina/core/random.hpp"

namespace lamina::testing {

/// Owns weights and gradients; hands out views of them.
template <class T>
struct host_tensors {
  struct tensor {
    std::string name;
    index_t layer;
    bool decays;
    std::vector<T> weight, gradient;
  };
  std::deque<tensor> tensors;

  /// A tensor with weights and gradients drawn from `seed` and its position in the list.
  host_tensors& add(std::string name, index_t layer, std::size_t size, bool decays = true,
                    std::uint64_t seed = 1) {
    counter_generator random(seed, tensors.size());
    tensor made{std::move(name), layer, decays, std::vector<T>(size), std::vector<T>(size)};
    for (T& w : made.weight) w = static_cast<T>(static_cast<float>(random.uniform() - 0.5));
    for (T& g : made.gradient) g = static_cast<T>(static_cast<float>(random.uniform() - 0.5));
    tensors.push_back(std::move(made));
    return *this;
  }

  /// New gradients everywhere, a function of the seed.
  void draw_gradients(std::uint64_t seed) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      counter_generator random(seed, i);
      for (T& g : tensors[i].gradient) {
        g = static_cast<T>(static_cast<float>(random.uniform() - 0.5));
      }
    }
  }

  std::vector<parameter_view<T>> parameters() {
    std::vector<parameter_view<T>> list;
    for (tensor& t : tensors) {
      list.push_back({.name = t.name,
                      .layer = t.layer,
                      .role = parameter_role::mlp_up,
                      .weight = t.weight,
                      .gradient = t.gradient,
                      .decays = t.decays});
    }
    return list;
  }

  std::vector<std::vector<T>> weights() const {
    std::vector<std::vector<T>> all;
    for (tensor const& t : tensors) all.push_back(t.weight);
    return all;
  }
};

/// Everything an optimizer remembers, to compare bit for bit.
template <class Optimizer>
auto state_of(Optimizer const& optimizer) {
  using scalar = typename Optimizer::scalar_type;
  auto const& state = optimizer.state();
  std::vector<std::vector<scalar>> all;
  for (index_t p = 0; p < state.size(); ++p) {
    all.push_back({static_cast<scalar>(state.step_count(p))});
    for (index_t slot = 0; slot < state.slot_count(); ++slot) {
      auto const values = state.values(p, slot);
      all.push_back(std::vector<scalar>(values.begin(), values.end()));
    }
  }
  return all;
}

/// Sizes around the ends of blocks, tiles and rows, and three rows in one tensor.
template <class T>
host_tensors<T> tensors_of_many_sizes() {
  host_tensors<T> host;
  index_t layer = 0;
  constexpr std::size_t sizes[] = {1, 7, 255, 257, 4095, 4096, 4097, 9000};
  for (std::size_t const size : sizes) {
    host.add("layers." + std::to_string(layer) + ".weight", layer, size, layer % 2 == 0);
    ++layer;
  }
  return host;
}

}  // namespace lamina::testing
