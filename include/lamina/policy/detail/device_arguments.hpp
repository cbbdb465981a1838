// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The arrays of a call on a device, checked before anything is asked for: that the device can use
// them, that their elements are aligned, that what is written lies apart from everything else.
#pragma once

#include <cstdint>

#include "lamina/backend/device_vector.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Throws device_error, naming the array, as soon as one does not fit to those before it.
template <device_backend Backend>
class device_arguments {
 public:
  device_arguments(Backend const& backend, char const* function)
      : backend_(backend), function_(function) {}

  template <class T>
  void reads(char const* name, vector_view<T> values) {
    check_reachable(backend_, function_, name, values);
    add(name, values.data, values.size, alignof(T), sizeof(T), false, nullptr);
  }
  template <class T>
  void reads(char const* name, matrix_view<T> values) {
    check_reachable(backend_, function_, name, values);
    add(name, values.data, contiguous_size(values), alignof(T), sizeof(T), false, nullptr);
  }
  // `same`: an array that is read and may be the very memory.
  template <class T>
  void writes(char const* name, vector_view<T> values, void const* same = nullptr) {
    check_reachable(backend_, function_, name, values);
    add(name, values.data, values.size, alignof(T), sizeof(T), true, same);
  }
  template <class T>
  void writes(char const* name, matrix_view<T> values, void const* same = nullptr) {
    check_reachable(backend_, function_, name, values);
    add(name, values.data, contiguous_size(values), alignof(T), sizeof(T), true, same);
  }

 private:
  struct range {
    char const* name;
    std::uintptr_t begin, end;
    bool written;
  };

  // Rows with gaps may share a buffer with what lies in the gaps: of them, the first alone counts.
  template <class T>
  static index_t contiguous_size(matrix_view<T> m) {
    return m.stride == m.cols ? m.rows * m.cols : m.rows > 0 ? m.cols : index_t(0);
  }

  void add(char const* name, void const* data, index_t size, std::size_t alignment,
           std::size_t element, bool written, void const* same) {
    if (size == 0) return;
    auto const begin = reinterpret_cast<std::uintptr_t>(data);
    if (begin % alignment != 0) {
      throw_device_error(function_, ": ", name, " is not aligned to the ", alignment,
                         " bytes of its elements");
    }
    range const own{name, begin, begin + static_cast<std::size_t>(size) * element, written};
    for (int i = 0; i < count_; ++i) {
      range const& other = ranges_[i];
      bool const apart = own.end <= other.begin || other.end <= own.begin;
      bool const shared = data == same && begin == other.begin;
      if (apart || shared || !(own.written || other.written)) continue;
      throw_device_error(function_, ": ", name, " [", size, "] overlaps ", other.name,
                         "; expected memory apart for what is written");
    }
    ranges_[count_++] = own;
  }

  Backend const& backend_;
  char const* function_;
  range ranges_[24] = {};
  int count_ = 0;
};

}  // namespace detail

LAMINA_NAMESPACE_END
