// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a GGUF file says: its metadata and where its tensors lie, every size checked against the
// file before it is used.
#pragma once

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "examples/decoder/gguf_cursor.hpp"
#include "examples/decoder/stored_type.hpp"

namespace decoder {

/// The content of a GGUF file, version 2 or 3, little endian. Views point into the bytes given.
/// Source: ggml, docs/gguf.md.
class gguf {
 public:
  /// Reads what `bytes` hold; `file` is its name in messages.
  ///
  /// Throws format_error naming the file and the byte offset if this is no GGUF file or of another
  /// version, if anything reaches past the end, if a key or a tensor comes twice, or if a tensor
  /// has a type other than those of stored_type, a dimension that is no multiple of its type's
  /// blocks, an offset that is not aligned, or bytes outside the file or shared with another
  /// tensor.
  gguf(std::string_view bytes, std::string file) : file_(std::move(file)) {
    detail::gguf_cursor cursor(bytes, file_);
    if (bytes.size() < 4 || cursor.take(4, "the magic") != "GGUF") {
      cursor.refuse("it does not begin with 'GGUF'");
    }
    auto const version = cursor.integer<std::uint32_t>("the version");
    if (version != 2 && version != 3) {
      cursor.refuse("version ", version, version << 16 != 0 ? "" : " (a big-endian file)",
                    ", expected 2 or 3");
    }
    auto const tensor_count = cursor.integer<std::uint64_t>("the tensor count");
    auto const key_count = cursor.integer<std::uint64_t>("the key count");
    for (std::uint64_t i = 0; i < key_count; ++i) read_key(cursor);
    for (std::uint64_t i = 0; i < tensor_count; ++i) read_tensor(cursor);
    place_tensors(cursor.position(), bytes);
  }

  std::string const& file() const { return file_; }
  std::vector<stored_tensor> const& tensors() const { return tensors_; }
  /// A tensor, or null.
  stored_tensor const* find_tensor(std::string_view name) const {
    auto const found =
        std::find_if(tensors_.begin(), tensors_.end(),
                     [&](stored_tensor const& tensor) { return tensor.name == name; });
    return found == tensors_.end() ? nullptr : &*found;
  }
  bool has(std::string_view key) const { return values_.count(key) > 0; }
  /// All keys, ascending.
  std::vector<std::string_view> keys() const {
    std::vector<std::string_view> result;
    for (auto const& [key, value] : values_) result.push_back(key);
    return result;
  }

  // Values by key. All throw format_error naming the file, the key and its type if the key is not
  // there or its value is not of the kind asked for.

  std::string_view text(std::string_view key) const {
    gguf_value const& value = get(key, "a string", {gguf_type::string});
    return value.bytes.substr(8);
  }
  bool flag(std::string_view key) const {
    return get(key, "a bool", {gguf_type::boolean}).bytes[0] != 0;
  }
  index_t integer(std::string_view key) const {
    gguf_value const& value = get(key, "an integer", integer_types);
    return integer_at(key, value.type, value.bytes.data());
  }
  /// A float32 or float64.
  double number(std::string_view key) const {
    gguf_value const& value = get(key, "a float", {gguf_type::float32, gguf_type::float64});
    char const* const at = value.bytes.data();
    if (value.type == gguf_type::float64) {
      return detail::number_at<double>(at);
    }
    return static_cast<double>(detail::number_at<float>(at));
  }
  std::vector<std::string_view> texts(std::string_view key) const {
    gguf_value const& value = get_array(key, "an array of strings", {gguf_type::string});
    std::vector<std::string_view> result;
    detail::gguf_cursor cursor(value.bytes, file_);
    while (cursor.left() > 0) result.push_back(cursor.string(key));
    return result;
  }
  std::vector<index_t> integers(std::string_view key) const {
    gguf_value const& value = get_array(key, "an array of integers", integer_types);
    std::size_t const size = detail::gguf_type_bytes(value.element);
    std::vector<index_t> result;
    for (std::size_t at = 0; at < value.bytes.size(); at += size) {
      result.push_back(integer_at(key, value.element, value.bytes.data() + at));
    }
    return result;
  }

 private:
  using types = std::initializer_list<gguf_type>;
  static constexpr types integer_types = {gguf_type::uint8,  gguf_type::int8,   gguf_type::uint16,
                                          gguf_type::int16,  gguf_type::uint32, gguf_type::int32,
                                          gguf_type::uint64, gguf_type::int64};

  gguf_value const& get(std::string_view key, char const* expected, types allowed) const {
    auto const found = values_.find(key);
    if (found == values_.end()) {
      lamina::throw_format_error("decoder::gguf: '", file_, "' has no '", key, "', expected ",
                                 expected);
    }
    if (std::find(allowed.begin(), allowed.end(), found->second.type) == allowed.end()) {
      lamina::throw_format_error("decoder::gguf: '", file_, "' has '", key, "' of type ",
                                 detail::gguf_type_name(found->second.type), ", expected ",
                                 expected);
    }
    return found->second;
  }
  gguf_value const& get_array(std::string_view key, char const* expected, types allowed) const {
    gguf_value const& value = get(key, expected, {gguf_type::array});
    if (std::find(allowed.begin(), allowed.end(), value.element) == allowed.end()) {
      lamina::throw_format_error("decoder::gguf: '", file_, "' has '", key,
                                 "' with elements of type ", detail::gguf_type_name(value.element),
                                 ", expected ", expected);
    }
    return value;
  }
  index_t integer_at(std::string_view key, gguf_type type, char const* at) const {
    switch (type) {
      case gguf_type::uint8: return detail::number_at<std::uint8_t>(at);
      case gguf_type::int8: return detail::number_at<std::int8_t>(at);
      case gguf_type::uint16: return detail::number_at<std::uint16_t>(at);
      case gguf_type::int16: return detail::number_at<std::int16_t>(at);
      case gguf_type::uint32: return detail::number_at<std::uint32_t>(at);
      case gguf_type::int32: return detail::number_at<std::int32_t>(at);
      default: break;
    }
    auto const value = detail::number_at<std::uint64_t>(at);
    if (type == gguf_type::uint64 && value > std::numeric_limits<std::uint64_t>::max() / 2) {
      lamina::throw_format_error("decoder::gguf: '", file_, "' has '", key, "' = ", value,
                                 ", expected less than 2^63");
    }
    return static_cast<index_t>(value);
  }

  void read_key(detail::gguf_cursor& cursor) {
    std::string_view const key = cursor.string("a key");
    if (key.size() > 65535)
      cursor.refuse("a key has ", key.size(), " bytes, expected at most 65535");
    gguf_type const type = cursor.value_type(key);
    if (!values_.emplace(key, cursor.value(type, key)).second) {
      cursor.refuse("'", key, "' comes a second time");
    }
  }

  // Shape and type; the bytes are known when all tensors are.
  void read_tensor(detail::gguf_cursor& cursor) {
    stored_tensor tensor{.name = cursor.string("a tensor's name")};
    if (tensor.name.size() > 64) {
      cursor.refuse("a tensor's name has ", tensor.name.size(), " bytes, expected at most 64");
    }
    auto const dimension_count = cursor.integer<std::uint32_t>("a tensor's dimension count");
    if (dimension_count < 1 || dimension_count > 4) {
      cursor.refuse("tensor '", tensor.name, "' has ", dimension_count,
                    " dimensions, expected 1..4");
    }
    index_t elements = 1;
    for (std::uint32_t d = 0; d < dimension_count; ++d) {
      auto const size = cursor.integer<std::uint64_t>("a tensor's dimension");
      if (size < 1 || size > static_cast<std::uint64_t>(max_elements / elements)) {
        cursor.refuse("tensor '", tensor.name, "' has dimension ", d, " of ", size,
                      ", expected at least 1 and at most 2^48 elements in all");
      }
      tensor.shape.insert(tensor.shape.begin(), static_cast<index_t>(size));
      elements *= static_cast<index_t>(size);
    }
    auto const type = cursor.integer<std::uint32_t>("a tensor's type");
    tensor.type = static_cast<stored_type>(type);
    stored_format const format = format_of(tensor.type);
    if (format.block_size == 0) {
      cursor.refuse("tensor '", tensor.name, "' has type ", type, " (",
                    detail::ggml_type_name(type), "), expected F32, F16, BF16, Q8_0, Q4_0 or Q4_1");
    }
    if (tensor.shape.back() % format.block_size != 0) {
      cursor.refuse("tensor '", tensor.name, "' has rows of ", tensor.shape.back(),
                    " elements, expected a multiple of ", format.block_size, ", the block of ",
                    format.name);
    }
    offsets_.push_back(cursor.integer<std::uint64_t>("a tensor's offset"));
    sizes_.push_back(static_cast<std::uint64_t>(stored_bytes(tensor.type, elements)));
    tensors_.push_back(std::move(tensor));
  }

  // Gives every tensor its bytes.
  void place_tensors(std::size_t header_size, std::string_view bytes) {
    std::uint64_t alignment = 32;
    if (has("general.alignment")) {
      index_t const stated = integer("general.alignment");
      if (stated < 1 || stated > (index_t{1} << 20) || (stated & (stated - 1)) != 0) {
        refuse("general.alignment is ", stated, ", expected a power of two up to 2^20");
      }
      alignment = static_cast<std::uint64_t>(stated);
    }
    std::uint64_t const data = (header_size + alignment - 1) / alignment * alignment;
    std::uint64_t const room = data < bytes.size() ? bytes.size() - data : 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (offsets_[i] % alignment != 0) {
        refuse("tensor '", tensors_[i].name, "' lies at offset ", offsets_[i],
               ", expected a multiple of the alignment ", alignment);
      }
      if (offsets_[i] > room || sizes_[i] > room - offsets_[i]) {
        refuse("tensor '", tensors_[i].name, "' lies at offset ", offsets_[i], " with ", sizes_[i],
               " bytes, the data have ", room, ": the file is truncated or lies");
      }
      tensors_[i].bytes = bytes.substr(static_cast<std::size_t>(data + offsets_[i]),
                                       static_cast<std::size_t>(sizes_[i]));
    }
    check_apart([](stored_tensor const& a, stored_tensor const& b) { return a.name < b.name; },
                [](stored_tensor const& a, stored_tensor const& b) { return a.name == b.name; },
                "have the same name");
    check_apart([](stored_tensor const& a,
                   stored_tensor const& b) { return a.bytes.data() < b.bytes.data(); },
                [](stored_tensor const& a, stored_tensor const& b) {
                  return a.bytes.data() + a.bytes.size() > b.bytes.data();
                },
                "overlap");
  }

  // Refuses neighbours in an order of the tensors that clash.
  template <class Before, class Clash>
  void check_apart(Before const& before, Clash const& clash, char const* what) const {
    std::vector<stored_tensor const*> order;
    for (stored_tensor const& tensor : tensors_) order.push_back(&tensor);
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return before(*a, *b); });
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (clash(*order[i - 1], *order[i])) {
        refuse("tensors '", order[i - 1]->name, "' and '", order[i]->name, "' ", what);
      }
    }
  }

  template <class... What>
  [[noreturn]] void refuse(What const&... what) const {
    lamina::throw_format_error("decoder::gguf: '", file_, "': ", what...);
  }

  static constexpr index_t max_elements = index_t{1} << 48;

  std::string file_;
  std::map<std::string_view, gguf_value> values_;
  std::vector<stored_tensor> tensors_;
  std::vector<std::uint64_t> offsets_;  // [tensors] from the start of the data
  std::vector<std::uint64_t> sizes_;    // [tensors]
};

}  // namespace decoder
