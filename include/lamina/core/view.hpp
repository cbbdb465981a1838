// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Views: data, shape and row stride of memory that somebody else owns.
#pragma once

#include <concepts>
#include <type_traits>

#include "lamina/config.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// A contiguous container or span: data() and size(), as the standard library spells them.
template <class Container, class T>
concept contiguous_container = requires(Container& c) {
  { c.data() } -> std::convertible_to<T*>;
  { c.size() } -> std::convertible_to<index_t>;
}
&&std::is_same_v<
    std::remove_const_t<std::remove_pointer_t<decltype(std::declval<Container&>().data())>>,
    std::remove_const_t<T>>;

}  // namespace detail

/// `size` contiguous elements. Trivially copyable; never owns; an empty view has size 0.
template <class T>
struct vector_view {
  using element_type = T;

  T* data = nullptr;
  index_t size = 0;

  constexpr vector_view() = default;
  LAMINA_HOST_DEVICE constexpr vector_view(T* first, index_t count) noexcept
      : data(first), size(count) {}

  /// A view of elements is a view of const elements.
  template <class U>
  requires(std::is_const_v<T>&& std::same_as<U const, T>) LAMINA_HOST_DEVICE
      constexpr vector_view(vector_view<U> other) noexcept
      : data(other.data), size(other.size) {}

  /// Any container with data() and size() over exactly this element type.
  template <class Container>
  requires(!std::is_same_v<std::remove_cvref_t<Container>, vector_view> &&
           detail::contiguous_container<Container, T>) constexpr vector_view(Container&&
                                                                                 container) noexcept
      : data(container.data()), size(static_cast<index_t>(container.size())) {}

  LAMINA_HOST_DEVICE constexpr T& operator[](index_t i) const noexcept { return data[i]; }
  LAMINA_HOST_DEVICE constexpr T* begin() const noexcept { return data; }
  LAMINA_HOST_DEVICE constexpr T* end() const noexcept { return data + size; }
  LAMINA_HOST_DEVICE constexpr bool empty() const noexcept { return size == 0; }

  /// Elements [first, first + count).
  LAMINA_HOST_DEVICE constexpr vector_view subview(index_t first, index_t count) const noexcept {
    LAMINA_ASSERT(first >= 0 && count >= 0 && first + count <= size);
    return {data + first, count};
  }
};

template <class T>
vector_view(T*, index_t) -> vector_view<T>;

/// Row-major matrix [rows, cols]; `stride` elements between the starts of consecutive rows.
/// Elements of a row are contiguous. Trivially copyable; never owns.
template <class T>
struct matrix_view {
  using element_type = T;

  T* data = nullptr;
  index_t rows = 0;
  index_t cols = 0;
  index_t stride = 0;

  constexpr matrix_view() = default;
  LAMINA_HOST_DEVICE constexpr matrix_view(T* first, index_t row_count, index_t col_count) noexcept
      : data(first), rows(row_count), cols(col_count), stride(col_count) {}
  LAMINA_HOST_DEVICE constexpr matrix_view(T* first, index_t row_count, index_t col_count,
                                           index_t row_stride) noexcept
      : data(first), rows(row_count), cols(col_count), stride(row_stride) {}

  /// A view of elements is a view of const elements.
  template <class U>
  requires(std::is_const_v<T>&& std::same_as<U const, T>) LAMINA_HOST_DEVICE
      constexpr matrix_view(matrix_view<U> other) noexcept
      : data(other.data), rows(other.rows), cols(other.cols), stride(other.stride) {}

  LAMINA_HOST_DEVICE constexpr T& operator()(index_t row, index_t col) const noexcept {
    return data[row * stride + col];
  }
  /// Row `index` as a contiguous vector of `cols` elements.
  LAMINA_HOST_DEVICE constexpr vector_view<T> row(index_t index) const noexcept {
    return {data + index * stride, cols};
  }
  /// Rows [first, first + count).
  LAMINA_HOST_DEVICE constexpr matrix_view row_block(index_t first, index_t count) const noexcept {
    LAMINA_ASSERT(first >= 0 && count >= 0 && first + count <= rows);
    return {data + first * stride, count, cols, stride};
  }
  LAMINA_HOST_DEVICE constexpr bool contiguous() const noexcept { return stride == cols; }
};

LAMINA_NAMESPACE_END
