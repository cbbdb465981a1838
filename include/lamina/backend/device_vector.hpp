// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Elements of any trivially copyable type in a device's memory.
#pragma once

#include <type_traits>
#include <utility>
#include <vector>

#include "lamina/backend/backend.hpp"
#include "lamina/core/error.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Memory of the host, or of another device, would be found out by a crash only, and much later.
template <device_backend Backend, class T>
void check_reachable(Backend const& backend, char const* function, char const* name,
                     vector_view<T> values) {
  if (values.size == 0 || backend.reaches(values.data)) return;
  throw_device_error(function, ": ", name, " [", values.size,
                     "] does not lie in memory that the backend's device can use");
}
template <device_backend Backend, class T>
void check_reachable(Backend const& backend, char const* function, char const* name,
                     matrix_view<T> values) {
  if (values.rows * values.cols == 0 || backend.reaches(values.data)) return;
  throw_device_error(function, ": ", name, " [", values.rows, ", ", values.cols,
                     "] does not lie in memory that the backend's device can use");
}

}  // namespace detail

/// Owns `size` elements in the memory of a device backend; zero at first. Movable. What is asked
/// for happens in the order of the backend's stream: nothing waits but to_host.
template <device_backend Backend, class T>
requires std::is_trivially_copyable_v<T>
class device_vector {
 public:
  using element_type = T;

  device_vector(Backend const& backend, index_t size)
      : size_(checked(size)), bytes_(backend.make_bytes(byte_count())) {}
  /// A copy of `values`, which have to stay until the stream has come to it.
  device_vector(Backend const& backend, vector_view<T const> values)
      : device_vector(backend, values.size) {
    assign(backend, values);
  }

  index_t size() const noexcept { return size_; }
  /// [size] elements that bodies may use and the host may not.
  vector_view<T> view() noexcept { return {static_cast<T*>(bytes_.data()), size_}; }
  vector_view<T const> view() const noexcept {
    return {static_cast<T const*>(const_cast<bytes_type&>(bytes_).data()), size_};
  }

  /// Overwrites all elements with `values`, which have to stay until the stream has come to it.
  /// Throws shape_error unless there are as many.
  void assign(Backend const& backend, vector_view<T const> values) {
    if (values.size != size_) {
      throw_shape_error("device_vector::assign: values has ", values.size, " elements, expected ",
                        size_);
    }
    if (size_ > 0) backend.copy(bytes_.data(), values.data, byte_count());
  }
  /// Waits for the stream and returns the elements.
  std::vector<T> to_host(Backend const& backend) const {
    std::vector<T> values(static_cast<std::size_t>(size_));
    if (size_ > 0) backend.copy(values.data(), view().data, byte_count());
    backend.synchronize();
    return values;
  }

 private:
  using bytes_type = decltype(std::declval<Backend const&>().make_bytes(std::size_t{}));

  static index_t checked(index_t size) {
    if (size < 0) throw_shape_error("device_vector: size is ", size, ", expected >= 0");
    return size;
  }
  std::size_t byte_count() const noexcept { return static_cast<std::size_t>(size_) * sizeof(T); }

  index_t size_;
  bytes_type bytes_;
};

LAMINA_NAMESPACE_END
