// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A model that is nothing but named weights.
#pragma once

#include <string>
#include <vector>

#include "lamina/core/parameter.hpp"

namespace lamina::testing {

template <class T>
class named_weights {
 public:
  /// Weight i of tensor t is (t + i) / 8 at first.
  explicit named_weights(std::vector<std::string> names, index_t size = 4)
      : names_(std::move(names)), weights_(names_.size()) {
    for (std::size_t t = 0; t < names_.size(); ++t) {
      for (index_t i = 0; i < size; ++i) {
        weights_[t].push_back(static_cast<T>(static_cast<float>(i + static_cast<index_t>(t)) / 8));
      }
    }
  }

  std::vector<T>& operator[](std::size_t tensor) { return weights_[tensor]; }
  std::vector<parameter_view<T>> parameters() {
    std::vector<parameter_view<T>> views;
    for (std::size_t t = 0; t < names_.size(); ++t) {
      views.push_back({.name = names_[t],
                       .layer = static_cast<index_t>(t),
                       .role = parameter_role::other,
                       .weight = weights_[t],
                       .gradient = {},
                       .decays = true});
    }
    return views;
  }
  /// Bytes of all weights.
  std::string bytes() const {
    std::string all;
    for (auto const& w : weights_) {
      all.append(reinterpret_cast<char const*>(w.data()), w.size() * sizeof(T));
    }
    return all;
  }

 private:
  std::vector<std::string> names_;
  std::vector<std::vector<T>> weights_;
};

}  // namespace lamina::testing
