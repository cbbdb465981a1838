// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tensors as files hold them: a name, a type, a shape, bytes; and their conversion to scalars.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/core/error.hpp"
#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"

LAMINA_NAMESPACE_BEGIN

static_assert(std::endian::native == std::endian::little,
              "lamina: files hold little-endian numbers, which are read as they are");

/// Element types of the safetensors format. lamina computes with f64, f32, f16 and bf16; tensors of
/// the others are listed and copied, not converted.
enum class dtype : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  c64,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  f6_e2m3,
  f6_e3m2,
  f4,
};

/// A type's name in a file, and how many bits an element has.
struct dtype_traits {
  dtype type;
  std::string_view name;
  index_t bit_count;
};

/// All types, in the order of the enumeration.
/// Source: huggingface/safetensors, safetensors/src/tensor.rs, `Dtype`.
inline constexpr dtype_traits dtypes[] = {
    {dtype::f64, "F64", 64},
    {dtype::f32, "F32", 32},
    {dtype::f16, "F16", 16},
    {dtype::bf16, "BF16", 16},
    {dtype::i64, "I64", 64},
    {dtype::i32, "I32", 32},
    {dtype::i16, "I16", 16},
    {dtype::i8, "I8", 8},
    {dtype::u64, "U64", 64},
    {dtype::u32, "U32", 32},
    {dtype::u16, "U16", 16},
    {dtype::u8, "U8", 8},
    {dtype::boolean, "BOOL", 8},
    {dtype::c64, "C64", 64},
    {dtype::f8_e5m2, "F8_E5M2", 8},
    {dtype::f8_e4m3, "F8_E4M3", 8},
    {dtype::f8_e8m0, "F8_E8M0", 8},
    {dtype::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {dtype::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {dtype::f6_e2m3, "F6_E2M3", 6},
    {dtype::f6_e3m2, "F6_E3M2", 6},
    {dtype::f4, "F4", 4},
};

constexpr dtype_traits const& traits_of(dtype type) noexcept {
  return dtypes[static_cast<std::size_t>(type)];
}

/// The type a scalar is stored as.
template <storage_scalar T>
inline constexpr dtype dtype_of = std::same_as<T, double>  ? dtype::f64
                                  : std::same_as<T, float> ? dtype::f32
                                  : std::same_as<T, f16>   ? dtype::f16
                                                           : dtype::bf16;

/// A tensor as bytes, which somebody else owns.
///
/// shape  row-major; empty is a scalar; a size may be 0
/// bytes  little-endian elements without gaps, at any alignment
struct raw_tensor {
  std::string name;
  dtype type = dtype::f32;
  std::vector<index_t> shape;
  std::string_view bytes;
};

/// The product of the sizes of a shape; -1 if one is negative or the product overflows.
constexpr index_t element_count(std::vector<index_t> const& shape) noexcept {
  index_t count = 1;
  for (index_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return -1;
  }
  return count;
}

/// The bytes that a tensor's shape and type ask for; -1 if there is no such number.
constexpr index_t byte_count(raw_tensor const& tensor) noexcept {
  index_t bit_count = element_count(tensor.shape);
  bool const possible =
      bit_count >= 0 &&
      !__builtin_mul_overflow(bit_count, traits_of(tensor.type).bit_count, &bit_count) &&
      bit_count % 8 == 0;
  return possible ? bit_count / 8 : -1;
}

/// The bytes of values.
template <storage_scalar T>
std::string_view bytes_of(vector_view<T const> values) noexcept {
  return {reinterpret_cast<char const*>(values.data),
          static_cast<std::size_t>(values.size) * sizeof(T)};
}

namespace detail {

// Of things with a name. Not by std::ranges, whose checks every user of the umbrella would compile.
template <class T>
void sort_by_name(std::vector<T>& things) {
  std::sort(things.begin(), things.end(), [](T const& a, T const& b) { return a.name < b.name; });
}
// The one of that name among sorted ones, or null.
template <class Things>
auto find_by_name(Things& things, std::string_view name) noexcept -> decltype(things.data()) {
  auto const place = std::lower_bound(
      things.begin(), things.end(), name,
      [](auto const& thing, std::string_view sought) { return thing.name < sought; });
  return place != things.end() && place->name == name ? &*place : nullptr;
}

template <storage_scalar From, storage_scalar To>
void convert_elements(char const* from, vector_view<To> to) noexcept {
  if constexpr (std::same_as<From, To>) {
    if (!to.empty()) std::memcpy(to.data, from, static_cast<std::size_t>(to.size) * sizeof(To));
  } else {
    for (index_t i = 0; i < to.size; ++i) {
      From value;
      std::memcpy(&value, from + static_cast<std::size_t>(i) * sizeof(From), sizeof value);
      to[i] = static_cast<To>(static_cast<compute_t<To>>(static_cast<compute_t<From>>(value)));
    }
  }
}

// Calls f(From{}) with the scalar of a type; false if lamina does not compute with it.
template <class Function>
bool with_scalar_of(dtype type, Function const& f) {
  switch (type) {
    case dtype::f64: f(double{}); return true;
    case dtype::f32: f(float{}); return true;
    case dtype::f16: f(f16{}); return true;
    case dtype::bf16: f(bf16{}); return true;
    default: return false;
  }
}

}  // namespace detail

/// Copies the elements of a tensor, rounded to nearest where T is narrower (f64 through float);
/// of the same type bit for bit.
///
/// values  as many as the tensor has elements
/// source  what errors call the place the tensor comes from
/// Throws format_error if lamina does not compute with the tensor's type, shape_error if the sizes
/// differ, both before anything changes.
template <storage_scalar T>
void copy_values(raw_tensor const& tensor, vector_view<T> values, std::string_view source) {
  if (element_count(tensor.shape) != values.size) {
    throw_shape_error("copy_values: '", source, "': ", tensor.name, " has ",
                      element_count(tensor.shape), " elements, the destination has ", values.size);
  }
  bool const known = detail::with_scalar_of(tensor.type, [&]<class From>(From) {
    detail::convert_elements<From>(tensor.bytes.data(), values);
  });
  if (!known) {
    throw_format_error("copy_values: '", source, "': ", tensor.name, " has the type ",
                       traits_of(tensor.type).name, ", expected F64, F32, F16 or BF16");
  }
}

LAMINA_NAMESPACE_END
