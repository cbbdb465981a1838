// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The number formats that weights are stored in, and how they are read: plain ones, and blocks of
// small integers with a common scale.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "lamina/io/raw_tensor.hpp"

namespace decoder {

using lamina::index_t;
using lamina::vector_view;

/// A format. The numbers are those of ggml, which GGUF files carry.
enum class stored_type : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q8_0 = 8,
  bf16 = 30,
};

/// What a format is called, and how many elements share how many bytes.
struct stored_format {
  std::string_view name{};
  index_t block_size;
  index_t block_bytes;
};

constexpr stored_format format_of(stored_type type) {
  switch (type) {
    case stored_type::f32: return {"F32", 1, 4};
    case stored_type::f16: return {"F16", 1, 2};
    case stored_type::q4_0: return {"Q4_0", 32, 18};
    case stored_type::q4_1: return {"Q4_1", 32, 20};
    case stored_type::q8_0: return {"Q8_0", 32, 34};
    case stored_type::bf16: return {"BF16", 1, 2};
  }
  return {"", 0, 0};
}

/// Bytes of `count` elements, a multiple of the block size.
constexpr index_t stored_bytes(stored_type type, index_t count) {
  stored_format const format = format_of(type);
  return count / format.block_size * format.block_bytes;
}

/// A tensor as it lies in a file.
///
/// shape  row-major: [rows, cols] of a matrix
/// bytes  stored_bytes(type, elements) of them
struct stored_tensor {
  std::string_view name{};
  std::vector<index_t> shape{};
  stored_type type = stored_type::f32;
  std::string_view bytes{};
};

namespace detail {

inline float half_at(char const* bytes) {
  lamina::f16 half;
  std::memcpy(&half, bytes, sizeof half);
  return half;
}

// A block of 32. The product of a scale of 11 bits and an integer of at most 8 is exact in float,
// so that a fused multiply-add gives the same bits.
template <class T>
void decode_block(stored_type type, char const* bytes, T* out) {
  float const scale = half_at(bytes);
  if (type == stored_type::q8_0) {
    for (int i = 0; i < 32; ++i) {
      out[i] = static_cast<T>(scale * static_cast<float>(static_cast<signed char>(bytes[2 + i])));
    }
    return;
  }
  bool const has_minimum = type == stored_type::q4_1;
  float const minimum = has_minimum ? half_at(bytes + 2) : 0;
  int const zero = has_minimum ? 0 : 8;
  char const* const nibbles = bytes + (has_minimum ? 4 : 2);
  for (int i = 0; i < 16; ++i) {
    int const pair = static_cast<unsigned char>(nibbles[i]);
    out[i] = static_cast<T>(scale * static_cast<float>((pair & 15) - zero) + minimum);
    out[i + 16] = static_cast<T>(scale * static_cast<float>((pair >> 4) - zero) + minimum);
  }
}

}  // namespace detail

/// Reads elements, each as the float it stands for and from there as T.
///
/// bytes  stored_bytes(type, values.size) bytes, at any alignment
/// values [a multiple of the block size]
///
/// With s and m halves and q integers: Q8_0 is s q (q signed, 8 bits); Q4_0 is s (q - 8) and Q4_1
/// is s q + m (q of 4 bits: elements 0..15 of a block in the low halves of its bytes, 16..31 in the
/// high ones). Source: ggml, dequantize_row_q8_0, _q4_0, _q4_1.
template <lamina::storage_scalar T>
void decode_stored(stored_type type, char const* bytes, vector_view<T> values) {
  switch (type) {
    case stored_type::f32: return lamina::detail::convert_elements<float>(bytes, values);
    case stored_type::f16: return lamina::detail::convert_elements<lamina::f16>(bytes, values);
    case stored_type::bf16: return lamina::detail::convert_elements<lamina::bf16>(bytes, values);
    case stored_type::q4_0:
    case stored_type::q4_1:
    case stored_type::q8_0: break;
  }
  stored_format const format = format_of(type);
  for (index_t i = 0; i < values.size; i += format.block_size, bytes += format.block_bytes) {
    detail::decode_block(type, bytes, values.data + i);
  }
}

}  // namespace decoder
