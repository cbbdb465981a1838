// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Memory of a backend for elements of any type, and copies into and out of it: one spelling for
// hosts, where both are plain, and for devices, where both happen in the order of a stream.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "lamina/backend/device_vector.hpp"

LAMINA_NAMESPACE_BEGIN

/// Waits until all that the backend was asked for is done; on a host it is.
template <tensor_backend Backend>
void wait(Backend const& backend) {
  if constexpr (device_backend<Backend>) backend.synchronize();
}

/// Copies elements, of which a device's may be either side or both. A device copies in the order of
/// its stream: memory of the host has to stay until then. Throws shape_error unless both have the
/// same size.
template <tensor_backend Backend, class T>
requires std::is_trivially_copyable_v<T>
void copy_elements(Backend const& backend, std::type_identity_t<vector_view<T const>> from,
                   vector_view<T> to) {
  if (from.size != to.size) {
    throw_shape_error("copy_elements: ", from.size, " elements are given for ", to.size);
  }
  if constexpr (device_backend<Backend>) {
    if (to.size > 0) {
      backend.copy(to.data, from.data, static_cast<std::size_t>(to.size) * sizeof(T));
    }
  } else {
    for (index_t i = 0; i < to.size; ++i) to[i] = from[i];
  }
}

namespace detail {

// check_reachable of a parameter's weight or gradient, where there is a device.
template <tensor_backend Backend, class T>
void check_reach(std::string_view function, Backend const& backend, std::string_view what,
                 std::string_view parameter, vector_view<T> values) {
  if constexpr (device_backend<Backend>) {
    check_reachable(backend, std::string(function).c_str(),
                    join("the ", what, " of ", parameter).c_str(), values);
  }
}

}  // namespace detail

/// One element for the host, without an allocation. On a device it waits for the stream.
template <tensor_backend Backend, class T>
T read_element(Backend const& backend, vector_view<T const> elements, index_t index) {
  T value;
  copy_elements(backend, elements.subview(index, 1), vector_view<T>(&value, 1));
  wait(backend);
  return value;
}

/// Owns `size` elements where bodies of the backend can use them; zero at first. Movable.
template <tensor_backend Backend, class T>
class backend_vector {
 public:
  using element_type = T;
  static_assert(std::is_trivially_copyable_v<T>);

  backend_vector(Backend const&, index_t size) : elements_(static_cast<std::size_t>(size)) {}

  index_t size() const noexcept { return static_cast<index_t>(elements_.size()); }
  /// [size] elements that bodies may use.
  vector_view<T> view() noexcept { return elements_; }
  vector_view<T const> view() const noexcept { return elements_; }
  /// A copy of the elements. On a device it waits for the stream.
  std::vector<T> to_host(Backend const&) const { return elements_; }

 private:
  std::vector<T> elements_;
};

template <device_backend Backend, class T>
class backend_vector<Backend, T> : public device_vector<Backend, T> {
 public:
  using device_vector<Backend, T>::device_vector;
};

LAMINA_NAMESPACE_END
