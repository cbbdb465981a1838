// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A decoder on a host and the same one on a simulated device, and how far apart they are.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "lamina/backend/eigen.hpp"
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/simulated_device.hpp"

namespace decoder::testing {

using lamina::testing::simulated_device;

template <class T, class Backend>
std::vector<T> fetch(Backend const& backend, vector_view<T> view) {
  std::vector<std::remove_const_t<T>> values(static_cast<std::size_t>(view.size));
  lamina::copy_elements(backend, vector_view<T const>(view), vector_view<T>(values));
  backend.synchronize();
  return values;
}
template <class T, class Backend>
std::vector<T> fetch(Backend const& backend, matrix_view<T> view) {
  return fetch(backend, flat(view));
}

/// Elements in the memory of a simulated device, as a host handed them over.
template <class T, class Backend>
struct uploaded {
  uploaded(Backend const& backend, std::vector<T> values)
      : host(std::move(values)), device(backend, vector_view<T const>(host)) {}
  std::vector<T> host;
  lamina::device_vector<Backend, T> device;

  matrix_view<T> matrix(index_t cols) { return {device.view().data, device.size() / cols, cols}; }
};

/// The largest difference, as a share of the largest element.
template <class A, class B>
double distance(A const& a, B const& b) {
  if (a.size() != b.size()) return 1e9;
  double largest = 1e-30, difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double const x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    if (!(std::abs(x - y) < 1e9)) return 1e9;
    largest = std::max(largest, std::abs(y));
    difference = std::max(difference, std::abs(x - y));
  }
  return difference / largest;
}

template <class T>
constexpr double rounding = sizeof(T) == 8 ? 1e-12 : 1e-5;

/// A device that multiplies bf16 by bf16 with wide sums, as cuBLAS does.
template <class Device>
struct with_narrow_products : Device {
  using Device::gemm;
  template <class Out>
  void gemm(lamina::transpose ta, lamina::transpose tb, float alpha,
            matrix_view<lamina::bf16 const> a, matrix_view<lamina::bf16 const> b, float beta,
            matrix_view<Out> c) const {
    auto const at = [](lamina::transpose t, matrix_view<lamina::bf16 const> m, index_t i,
                       index_t k) {
      return static_cast<double>(t == lamina::transpose::yes ? m(k, i) : m(i, k));
    };
    index_t const depth = ta == lamina::transpose::yes ? a.rows : a.cols;
    this->work->ask([=] {
      for (index_t i = 0; i < c.rows; ++i) {
        for (index_t j = 0; j < c.cols; ++j) {
          double sum = 0;
          for (index_t k = 0; k < depth; ++k) {
            auto const other =
                tb == lamina::transpose::yes ? lamina::transpose::no : lamina::transpose::yes;
            sum += at(ta, a, i, k) * at(other, b, j, k);
          }
          float const old = beta == 0 ? 0.0f : beta * static_cast<float>(c(i, j));
          c(i, j) = static_cast<Out>(alpha * static_cast<float>(sum) + old);
        }
      }
    });
  }
};

/// One model on both sides.
template <class T, class Weight = T, class Device = simulated_device<T>>
struct model_pair {
  using host_type = transformer<lamina::eigen_backend<T>, Weight>;
  using device_type = transformer<Device, Weight>;

  explicit model_pair(config const& shape)
      : source({}, shape), host({}, shape), device(backend, shape) {
    randomize(source, 11);
    host.copy_weights(source);
    device.copy_weights(source);
  }
  device_batch<Device> place(token_batch const& batch) const {
    return {backend, batch, host.shape()};
  }
  /// The largest distance between the gradients of the two.
  double gradient_distance() {
    double largest = 0;
    auto const ours = lamina::all_parameters(device), theirs = lamina::all_parameters(host);
    for (std::size_t i = 0; i < theirs.size(); ++i) {
      if (ours[i].gradient.size != theirs[i].gradient.size) return 1e9;
      if (theirs[i].gradient.empty()) continue;
      largest = std::max(largest,
                         distance(fetch(backend, ours[i].gradient), copy_of(theirs[i].gradient)));
    }
    return largest;
  }

  Device backend;
  transformer<lamina::eigen_backend<T>> source;
  host_type host;
  device_type device;
};

}  // namespace decoder::testing
