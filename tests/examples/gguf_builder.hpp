// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// GGUF files written field by field, so that a test can lie in any of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "examples/decoder/gguf.hpp"

namespace decoder::testing {

template <class Number>
std::string bytes_of(Number value) {
  return {reinterpret_cast<char const*>(&value), sizeof value};
}
inline std::string gguf_string(std::string_view text) {
  return bytes_of<std::uint64_t>(text.size()).append(text);
}

/// A file of keys and tensors, as bytes.
struct gguf_builder {
  std::uint32_t version = 3;
  std::size_t alignment = 32;
  std::vector<std::string> keys{};
  std::vector<std::string> tensors{};
  std::string data{};

  gguf_builder& key(std::string_view name, gguf_type type, std::string const& value) {
    keys.push_back(gguf_string(name) + bytes_of(type) + value);
    return *this;
  }
  gguf_builder& integer(std::string_view name, std::uint32_t value) {
    return key(name, gguf_type::uint32, bytes_of(value));
  }
  gguf_builder& number(std::string_view name, float value) {
    return key(name, gguf_type::float32, bytes_of(value));
  }
  gguf_builder& text(std::string_view name, std::string_view value) {
    return key(name, gguf_type::string, gguf_string(value));
  }
  /// A tensor whose bytes follow those of the one before.
  gguf_builder& tensor(std::string_view name, std::vector<std::uint64_t> const& dimensions,
                       std::uint32_t type, std::string_view bytes) {
    tensor_at(name, dimensions, type, data.size());
    data.append(bytes);
    data.resize((data.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  gguf_builder& tensor_at(std::string_view name, std::vector<std::uint64_t> const& dimensions,
                          std::uint32_t type, std::uint64_t offset) {
    std::string info = gguf_string(name) + bytes_of(static_cast<std::uint32_t>(dimensions.size()));
    for (std::uint64_t const size : dimensions) info += bytes_of(size);
    tensors.push_back(info + bytes_of(type) + bytes_of(offset));
    return *this;
  }
  std::string header() const {
    std::string bytes = "GGUF" + bytes_of(version) + bytes_of<std::uint64_t>(tensors.size()) +
                        bytes_of<std::uint64_t>(keys.size());
    for (std::string const& entry : keys) bytes += entry;
    for (std::string const& entry : tensors) bytes += entry;
    return bytes;
  }
  std::string file() const {
    std::string bytes = header();
    if (!tensors.empty()) bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    return bytes + data;
  }
};

/// A Llama of one layer, width 2 and vocabulary 2, whose weights are all one.
inline gguf_builder tiny_llama() {
  gguf_builder file;
  file.text("general.architecture", "llama")
      .integer("llama.block_count", 1)
      .integer("llama.embedding_length", 2)
      .integer("llama.feed_forward_length", 2)
      .integer("llama.attention.head_count", 1)
      .number("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  std::string const ones = bytes_of(1.0f) + bytes_of(1.0f);
  for (char const* const name :
       {"token_embd", "output", "blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v", "blk.0.attn_output",
        "blk.0.ffn_gate", "blk.0.ffn_up", "blk.0.ffn_down"}) {
    file.tensor(std::string(name) + ".weight", {2, 2}, 0, ones + ones);
  }
  for (char const* const name : {"output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"}) {
    file.tensor(std::string(name) + ".weight", {2}, 0, ones);
  }
  return file;
}

}  // namespace decoder::testing
