// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The front of a GGUF file, read from the left: every length is checked against the bytes that are
// left before it is used.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "lamina/core/error.hpp"

namespace decoder {

/// Types of metadata values, numbered as in the file.
enum class gguf_type : std::uint32_t {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  float32,
  boolean,
  string,
  array,
  uint64,
  int64,
  float64,
};

/// A metadata value as it lies in the file.
///
/// element  type of the elements, of an array
/// count    elements of an array, else 1
/// bytes    what the value takes in the file, after its type and count
struct gguf_value {
  gguf_type type = gguf_type::array;
  gguf_type element = gguf_type::array;
  std::uint64_t count = 1;
  std::string_view bytes{};
};

namespace detail {

constexpr std::string_view gguf_type_name(gguf_type type) {
  switch (type) {
    case gguf_type::uint8: return "uint8";
    case gguf_type::int8: return "int8";
    case gguf_type::uint16: return "uint16";
    case gguf_type::int16: return "int16";
    case gguf_type::uint32: return "uint32";
    case gguf_type::int32: return "int32";
    case gguf_type::float32: return "float32";
    case gguf_type::boolean: return "bool";
    case gguf_type::string: return "string";
    case gguf_type::array: return "array";
    case gguf_type::uint64: return "uint64";
    case gguf_type::int64: return "int64";
    case gguf_type::float64: return "float64";
  }
  return "";
}

// Bytes of a value of fixed size, 0 of strings and arrays.
constexpr std::size_t gguf_type_bytes(gguf_type type) {
  switch (type) {
    case gguf_type::uint8:
    case gguf_type::int8:
    case gguf_type::boolean: return 1;
    case gguf_type::uint16:
    case gguf_type::int16: return 2;
    case gguf_type::uint32:
    case gguf_type::int32:
    case gguf_type::float32: return 4;
    case gguf_type::uint64:
    case gguf_type::int64:
    case gguf_type::float64: return 8;
    case gguf_type::string:
    case gguf_type::array: return 0;
  }
  return 0;
}

// ggml's name of a tensor type, for messages.
constexpr std::string_view ggml_type_name(std::uint32_t type) {
  constexpr std::string_view names[] = {
      "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
      "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
      "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
      "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
      "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
      "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4"};
  return type < std::size(names) ? names[type] : "unknown to ggml";
}

// A number whose bytes lie there, least significant first.
template <class Number>
Number number_at(char const* bytes) {
  Number value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// The front of a file that is read from the left, every step checked.
class gguf_cursor {
 public:
  gguf_cursor(std::string_view bytes, std::string const& file) : bytes_(bytes), file_(&file) {}

  std::size_t position() const { return position_; }
  std::size_t left() const { return bytes_.size() - position_; }

  /// Throws format_error about what was read last.
  template <class... What>
  [[noreturn]] void refuse(What const&... what) const {
    lamina::throw_format_error("decoder::gguf: '", *file_, "' at byte ", last_, ": ", what...);
  }

  /// The next `size` bytes, which are `what`.
  std::string_view take(std::uint64_t size, std::string_view what) {
    last_ = position_;
    if (size > left()) {
      refuse(what, " needs ", size, " bytes, ", left(), " are left: the file is truncated or lies");
    }
    std::string_view const part = bytes_.substr(position_, static_cast<std::size_t>(size));
    position_ += part.size();
    return part;
  }
  template <class Unsigned>
  Unsigned integer(std::string_view what) {
    return number_at<Unsigned>(take(sizeof(Unsigned), what).data());
  }
  std::string_view string(std::string_view what) {
    return take(integer<std::uint64_t>(what), what);
  }
  gguf_type value_type(std::string_view key) {
    auto const type = integer<std::uint32_t>("a value type");
    if (type > static_cast<std::uint32_t>(gguf_type::float64)) {
      refuse("value type ", type, " of '", key, "', expected 0..12");
    }
    return static_cast<gguf_type>(type);
  }

  /// A value of the type; its parts are walked through, so that whoever reads it later need not
  /// check it again.
  gguf_value value(gguf_type type, std::string_view key, int depth = 0) {
    gguf_value result{.type = type};
    if (type == gguf_type::array) {
      if (depth == max_depth) refuse("'", key, "' nests arrays more than ", max_depth, " deep");
      result.element = value_type(key);
      result.count = integer<std::uint64_t>("an array's length");
    }
    std::size_t const begin = position_;
    if (type != gguf_type::array) {
      skip_element(type, key, depth);
    } else if (std::size_t const size = gguf_type_bytes(result.element); size > 0) {
      if (result.count > left() / size) {
        refuse("'", key, "' has ", result.count, " elements of ", size, " bytes, ", left(),
               " bytes are left: the file is truncated or lies");
      }
      take(result.count * size, key);
    } else {
      for (std::uint64_t i = 0; i < result.count; ++i) skip_element(result.element, key, depth);
    }
    result.bytes = bytes_.substr(begin, position_ - begin);
    return result;
  }

 private:
  static constexpr int max_depth = 4;

  void skip_element(gguf_type type, std::string_view key, int depth) {
    if (type == gguf_type::string) {
      string(key);
    } else if (type == gguf_type::array) {
      value(type, key, depth + 1);
    } else {
      take(gguf_type_bytes(type), key);
    }
  }

  std::string_view bytes_;
  std::string const* file_;
  std::size_t position_ = 0;
  std::size_t last_ = 0;
};

}  // namespace detail

}  // namespace decoder
