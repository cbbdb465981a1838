// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tensors of a host once more in the memory of a device.
#pragma once

#include <deque>

#include "lamina/backend/device_vector.hpp"
#include "tests/optim/tensors.hpp"

namespace lamina::testing {

/// Weights and gradients of `host` on a device, which have its names; both have to stay while
/// copies are pending.
template <class Backend, class T>
struct device_tensors {
  struct tensor {
    device_vector<Backend, T> weight, gradient;
  };
  Backend backend;
  host_tensors<T>& host;
  std::deque<tensor> tensors;

  device_tensors(Backend const& device, host_tensors<T>& on_host) : backend(device), host(on_host) {
    for (auto const& t : host.tensors) {
      index_t const size = static_cast<index_t>(t.weight.size());
      tensors.push_back({{backend, size}, {backend, size}});
    }
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      tensors[i].weight.assign(backend, host.tensors[i].weight);
    }
    copy_gradients();
  }

  /// What the host has as gradients now.
  void copy_gradients() {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      tensors[i].gradient.assign(backend, host.tensors[i].gradient);
    }
    backend.synchronize();
  }

  std::vector<parameter_view<T>> parameters() {
    auto list = host.parameters();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      list[i].weight = tensors[i].weight.view();
      list[i].gradient = tensors[i].gradient.view();
    }
    return list;
  }

  /// Waits.
  std::vector<std::vector<T>> weights() const {
    std::vector<std::vector<T>> all;
    for (tensor const& t : tensors) all.push_back(t.weight.to_host(backend));
    return all;
  }
};

/// Everything an optimizer remembers, wherever it does; waits for a device.
template <class Optimizer>
auto remembered(Optimizer const& optimizer) {
  using scalar = typename Optimizer::scalar_type;
  std::vector<std::vector<scalar>> all;
  for (index_t p = 0; p < optimizer.state().size(); ++p) {
    auto const parked = optimizer.state().parked(p);
    all.push_back({static_cast<scalar>(parked.step_count)});
    all.insert(all.end(), parked.slots.begin(), parked.slots.end());
  }
  return all;
}

}  // namespace lamina::testing
