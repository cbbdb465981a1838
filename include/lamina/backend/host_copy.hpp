// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Weights of a device in memory of the host, for all that is written for hosts: snapshots, audits,
// files, patches.
#pragma once

#include <utility>
#include <vector>

#include "lamina/backend/backend_vector.hpp"
#include "lamina/core/parameter.hpp"

LAMINA_NAMESPACE_BEGIN

/// A copy of the weights of some parameters, which go by the same names.
///
///   lamina::host_copy weights(backend, lamina::all_parameters(model));
///   lamina::write_...(path, ...weights.parameters()...);         // or
///   patch.apply(weights.parameters());                           // changes the copy
///   weights.write_back();                                        // and now the model
///
/// Memory: that of the weights, once more, on the host. Every member that copies waits for the
/// device.
template <tensor_backend Backend, storage_scalar T>
class host_copy {
 public:
  /// Throws device_error if the device cannot use one of the weights.
  host_copy(Backend const& backend, std::vector<parameter_view<T>> parameters)
      : backend_(backend), originals_(std::move(parameters)) {
    for (parameter_view<T> const& p : originals_) {
      detail::check_reach("host_copy", backend_, "weight", p.name, p.weight);
      values_.emplace_back(static_cast<std::size_t>(p.weight.size));
      copies_.push_back(p);
      copies_.back().weight = values_.back();
      copies_.back().gradient = {};
    }
    refresh();
  }
  // Views point into the copy.
  host_copy(host_copy&&) noexcept = default;
  host_copy& operator=(host_copy&&) noexcept = default;

  /// The parameters with weights that the host can read and write, and without gradients.
  std::vector<parameter_view<T>> const& parameters() const noexcept { return copies_; }

  /// Takes the weights over as they are now.
  void refresh() {
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      copy_elements(backend_, originals_[i].weight, copies_[i].weight);
    }
    wait(backend_);
  }
  /// Makes the weights what the copy is.
  void write_back() {
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      copy_elements(backend_, copies_[i].weight, originals_[i].weight);
    }
    wait(backend_);
  }

 private:
  Backend backend_;
  std::vector<parameter_view<T>> originals_, copies_;
  std::vector<std::vector<T>> values_;
};

LAMINA_NAMESPACE_END
