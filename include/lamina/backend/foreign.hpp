// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tensors of other libraries as views: their layout is checked once, their memory is used as it
// lies.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "lamina/core/error.hpp"
#include "lamina/core/view.hpp"

LAMINA_NAMESPACE_BEGIN

/// Where a foreign tensor's elements lie. A host specialises it for its own tensor type X; nothing
/// is found by argument-dependent lookup.
///
/// data(x)          the first element, T* or T const*
/// rank(x)          how many axes
/// extent(x, axis)  how many indices an axis has
/// stride(x, axis)  elements between neighbours along an axis; any number where the extent is 1
///
/// The primary template asks the members that std::mdspan has. eigen.hpp and xtensor.hpp specialise
/// it for what those libraries offer.
template <class X>
struct tensor_traits {
  static auto data(auto& x) requires requires { x.data_handle(); }
  { return x.data_handle(); }
  static index_t rank(X const& x) requires requires { x.rank(); }
  { return static_cast<index_t>(x.rank()); }
  static index_t extent(X const& x, index_t axis) requires requires { x.extent(std::size_t{}); }
  { return static_cast<index_t>(x.extent(static_cast<std::size_t>(axis))); }
  static index_t stride(X const& x, index_t axis) requires requires { x.stride(std::size_t{}); }
  { return static_cast<index_t>(x.stride(static_cast<std::size_t>(axis))); }
};

/// A type whose tensor_traits are complete.
template <class X>
concept foreign_tensor = requires(std::remove_reference_t<X>& x, std::remove_cvref_t<X> const& cx,
                                  index_t axis) {
  {*tensor_traits<std::remove_cvref_t<X>>::data(x)};
  { tensor_traits<std::remove_cvref_t<X>>::rank(cx) } -> std::convertible_to<index_t>;
  { tensor_traits<std::remove_cvref_t<X>>::extent(cx, axis) } -> std::convertible_to<index_t>;
  { tensor_traits<std::remove_cvref_t<X>>::stride(cx, axis) } -> std::convertible_to<index_t>;
};

/// Says in a sentence that a type is not a foreign_tensor, in every compiler.
template <class X>
consteval bool check_foreign_tensor() {
  static_assert(foreign_tensor<X>,
                "lamina: this type is no tensor with memory of its own; evaluate an expression "
                "first, or specialise lamina::tensor_traits with data, rank, extent and stride");
  return foreign_tensor<X>;
}

/// Axes of a tensor from the outermost to the innermost; strides in elements.
struct tensor_layout {
  static constexpr index_t max_rank = 64;
  index_t rank = 0;
  index_t extents[max_rank];
  index_t strides[max_rank];
};

namespace detail {

inline std::string text_of(index_t const* numbers, index_t count) {
  std::string text = "[";
  for (index_t i = 0; i < count; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(numbers[i]);
  }
  return text + "]";
}

// "<function>: tensor has shape [2, 3] and strides [3, 1], expected <expected>"
[[noreturn]] inline void throw_layout_error(char const* function, tensor_layout const& layout,
                                            std::string_view expected) {
  throw_shape_error(function, ": tensor has shape ", text_of(layout.extents, layout.rank),
                    " and strides ", text_of(layout.strides, layout.rank), ", expected ", expected);
}

inline void check_rank(char const* function, index_t rank, index_t least) {
  if (rank < least || rank > tensor_layout::max_rank) {
    throw_shape_error(function, ": tensor has rank ", rank, ", expected ", least, " to ",
                      tensor_layout::max_rank);
  }
}

// The strides of a tensor whose elements lie without gaps, row-major.
inline void set_compact_strides(tensor_layout& layout) noexcept {
  index_t stride = 1;
  for (index_t axis = layout.rank - 1; axis >= 0; --axis) {
    layout.strides[axis] = stride;
    if (__builtin_mul_overflow(stride, layout.extents[axis], &stride)) stride = 0;
  }
}

struct flat_rows {
  index_t rows, cols, stride;
};

// Axes [first, last) as one axis: how many indices it has, and the stride between neighbours. Axes
// of one index say nothing about where elements lie.
struct merged_axes {
  index_t extent = 1, stride = 0;
  bool mergeable = true, negative = false;
};

inline merged_axes merge_axes(char const* function, tensor_layout const& layout, index_t first,
                              index_t last) {
  merged_axes merged;
  index_t next_stride = 0;
  for (index_t axis = last - 1; axis >= first; --axis) {
    index_t const extent = layout.extents[axis], stride = layout.strides[axis];
    if (extent < 0) throw_layout_error(function, layout, "no negative extent");
    if (extent > 1) {
      merged.negative |= stride < 0;
      if (next_stride == 0) {
        merged.stride = stride;
      } else {
        merged.mergeable &= stride == next_stride;
      }
      if (__builtin_mul_overflow(stride, extent, &next_stride)) merged.mergeable = false;
      if (next_stride == 0) next_stride = -1;  // a stride of 0, which nothing continues
    }
    if (__builtin_mul_overflow(merged.extent, extent, &merged.extent)) {
      throw_layout_error(function, layout, "fewer than 2^63 elements");
    }
  }
  return merged;
}

// The tensor as rows of contiguous elements: its last axis makes the columns, all others the rows.
inline flat_rows flatten(char const* function, tensor_layout const& layout, index_t element_size) {
  check_rank(function, layout.rank, 2);
  merged_axes const row = merge_axes(function, layout, 0, layout.rank - 1);
  merged_axes const col = merge_axes(function, layout, layout.rank - 1, layout.rank);
  if (row.extent == 0 || col.extent == 0) return {row.extent, col.extent, col.extent};
  if (row.negative || col.negative) throw_layout_error(function, layout, "no negative stride");
  if (col.extent > 1 && col.stride != 1) {
    throw_layout_error(function, layout, "a last stride of 1: rows must be contiguous");
  }
  if (!row.mergeable) {
    throw_layout_error(function, layout,
                       "leading axes that continue each other, so that rows are equally far apart");
  }
  index_t const stride = row.extent > 1 ? row.stride : col.extent;
  if (stride < col.extent) {
    throw_layout_error(function, layout, "rows that do not overlap");
  }
  index_t span = 0;
  if (__builtin_mul_overflow(row.extent - 1, stride, &span) ||
      __builtin_add_overflow(span, col.extent, &span) ||
      __builtin_mul_overflow(span, element_size, &span)) {
    throw_layout_error(function, layout,
                       "fewer than 2^63 bytes from its first element to its last");
  }
  return {row.extent, col.extent, stride};
}

// The number of elements of a tensor that lies without gaps.
inline index_t flatten_all(char const* function, tensor_layout const& layout,
                           index_t element_size) {
  check_rank(function, layout.rank, 1);
  merged_axes const all = merge_axes(function, layout, 0, layout.rank);
  if (all.extent > 1 && (all.stride != 1 || !all.mergeable)) {
    throw_layout_error(function, layout, "elements without gaps, the last axis innermost");
  }
  index_t bytes = 0;
  if (__builtin_mul_overflow(all.extent, element_size, &bytes)) {
    throw_layout_error(function, layout, "fewer than 2^63 bytes");
  }
  return all.extent;
}

inline void check_address(char const* function, void const* data, index_t count,
                          std::size_t alignment) {
  if (count == 0) return;
  if (data == nullptr) {
    throw_shape_error(function, ": data is null, expected the memory of ", count, " elements");
  }
  std::size_t const past = reinterpret_cast<std::uintptr_t>(data) % alignment;
  if (past != 0) {
    throw_shape_error(function, ": data lies ", past, " bytes past a multiple of ", alignment,
                      ", expected an address that is a multiple of ", alignment);
  }
}

template <class T>
matrix_view<T> checked_matrix(char const* function, T* data, tensor_layout const& layout) {
  flat_rows const flat = flatten(function, layout, sizeof(T));
  check_address(function, data, flat.rows * flat.cols, alignof(T));
  return {data, flat.rows, flat.cols, flat.stride};
}

template <class T>
vector_view<T> checked_vector(char const* function, T* data, tensor_layout const& layout) {
  index_t const count = flatten_all(function, layout, sizeof(T));
  check_address(function, data, count, alignof(T));
  return {data, count};
}

inline tensor_layout make_layout(char const* function, vector_view<index_t const> shape) {
  check_rank(function, shape.size, 1);
  tensor_layout layout;
  layout.rank = shape.size;
  for (index_t axis = 0; axis < shape.size; ++axis) layout.extents[axis] = shape[axis];
  set_compact_strides(layout);
  return layout;
}

inline tensor_layout make_layout(char const* function, vector_view<index_t const> shape,
                                 vector_view<index_t const> strides) {
  if (shape.size != strides.size) {
    throw_shape_error(function, ": shape has ", shape.size, " axes, strides has ", strides.size);
  }
  tensor_layout layout = make_layout(function, shape);
  for (index_t axis = 0; axis < shape.size; ++axis) layout.strides[axis] = strides[axis];
  return layout;
}

template <foreign_tensor X>
tensor_layout layout_of(char const* function, X const& x) {
  using traits = ::lamina::tensor_traits<X>;
  tensor_layout layout;
  layout.rank = traits::rank(x);
  check_rank(function, layout.rank, 0);
  for (index_t axis = 0; axis < layout.rank; ++axis) {
    layout.extents[axis] = traits::extent(x, axis);
    layout.strides[axis] = traits::stride(x, axis);
  }
  return layout;
}

inline vector_view<index_t const> numbers_of(std::initializer_list<index_t> list) noexcept {
  return {list.begin(), static_cast<index_t>(list.size())};
}

}  // namespace detail

/// A view [rows, cols] of a foreign tensor of rank 2 or more: the last axis makes the columns, all
/// others together the rows. Its memory must stay as long as the view is used.
///
/// Elements of a row must be contiguous, rows equally far apart and at least a row's length: the
/// last stride is 1, and every leading stride is the next one's stride times its extent. Axes of
/// one index do not count. Views of const tensors are const.
/// Throws shape_error, which names shape and strides, if that does not hold, if the data is null or
/// misaligned for T, or if the size overflows.
template <class X>
auto make_matrix_view(X&& tensor) {
  static_assert(check_foreign_tensor<X>());
  using traits = ::lamina::tensor_traits<std::remove_cvref_t<X>>;
  return detail::checked_matrix("make_matrix_view", traits::data(tensor),
                                detail::layout_of("make_matrix_view", tensor));
}

/// The same for memory described by hand: a row stride for two axes, or one for every axis.
template <class T>
matrix_view<T> make_matrix_view(T* data, vector_view<index_t const> shape,
                                vector_view<index_t const> strides) {
  return detail::checked_matrix("make_matrix_view", data,
                                detail::make_layout("make_matrix_view", shape, strides));
}
template <class T>
matrix_view<T> make_matrix_view(T* data, std::initializer_list<index_t> shape,
                                std::initializer_list<index_t> strides) {
  return ::lamina::make_matrix_view(data, detail::numbers_of(shape), detail::numbers_of(strides));
}

/// A view [rows, cols] of memory without gaps that knows its size: std::span, std::vector. Throws
/// shape_error if the shape has another number of elements.
template <class Container>
auto make_matrix_view(Container&& values, std::initializer_list<index_t> shape) requires requires {
  *values.data();
  values.size();
}
{
  tensor_layout const layout = detail::make_layout("make_matrix_view", detail::numbers_of(shape));
  auto const view = detail::checked_matrix("make_matrix_view", values.data(), layout);
  if (view.rows * view.cols != static_cast<index_t>(values.size())) {
    throw_shape_error("make_matrix_view: values has ", values.size(), " elements, shape ",
                      detail::text_of(layout.extents, layout.rank), " has ", view.rows * view.cols);
  }
  return view;
}

/// All elements of a foreign tensor of any rank from 1, which must lie without gaps, row-major.
/// Throws shape_error as make_matrix_view does.
template <class X>
auto make_vector_view(X&& tensor) {
  static_assert(check_foreign_tensor<X>());
  using traits = ::lamina::tensor_traits<std::remove_cvref_t<X>>;
  return detail::checked_vector("make_vector_view", traits::data(tensor),
                                detail::layout_of("make_vector_view", tensor));
}

LAMINA_NAMESPACE_END
