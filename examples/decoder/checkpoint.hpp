// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Weights in a file: written whole or not at all, checked whole before a single weight changes.
#pragma once

#include <bit>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "examples/decoder/transformer.hpp"
#include "lamina/io/atomic_file.hpp"
#include "lamina/io/record.hpp"

namespace decoder {

/// A shape as text, field by field.
inline std::vector<std::string> shape_fields(config const& s) {
  auto const integer = [](char const* field, index_t value) {
    return std::string(field) + "=" + std::to_string(value);
  };
  std::vector<std::string> fields{integer("layer_count", s.layer_count),
                                  integer("width", s.width),
                                  integer("head_count", s.head_count),
                                  integer("kv_head_count", s.kv_head_count),
                                  integer("head_width", s.head_width),
                                  integer("ffn_width", s.ffn_width),
                                  integer("vocab", s.vocab),
                                  "rope_theta=" + lamina::exact_text(s.rope_theta),
                                  "norm_epsilon=" + lamina::exact_text(s.norm_epsilon),
                                  integer("tied_head", s.tied_head),
                                  integer("qkv_bias", s.qkv_bias),
                                  integer("qk_norm", s.qk_norm)};
  if (rope_scaling const& rope = s.rope; !(rope == rope_scaling{})) {
    std::string text = integer("rope", static_cast<index_t>(rope.kind));
    for (double const value : {rope.factor, rope.original_length, rope.slow, rope.fast,
                               rope.whole_pairs ? 1.0 : 0.0, rope.magnitude}) {
      text += " " + lamina::exact_text(value);
    }
    fields.push_back(std::move(text));
  }
  return fields;
}

namespace detail {

inline constexpr std::string_view checkpoint_magic = "lamina decoder checkpoint";

/// The lines a checkpoint of this model begins with, as fields: what it is, then every tensor and
/// its size. A file is accepted if it has exactly these.
template <class Backend>
std::vector<std::vector<std::string>> checkpoint_lines(transformer<Backend> const& model,
                                                       std::string_view fingerprint) {
  bool const wide = sizeof(typename Backend::scalar_type) == 8;
  bool const little = std::endian::native == std::endian::little;
  std::vector<std::string> head{std::string(checkpoint_magic), "version=1",
                                std::string("scalar=") + (wide ? "float64" : "float32") +
                                    (little ? " little" : " big") + " endian"};
  for (std::string& field : shape_fields(model.shape())) head.push_back(std::move(field));
  head.push_back("settings=" + std::string(fingerprint));
  std::vector<std::vector<std::string>> lines{std::move(head)};
  for (index_t layer = lamina::outside_layers; layer < model.layer_count(); ++layer) {
    for (auto const& parameter : model.block(layer).parameters()) {
      lines.push_back(
          {std::string(parameter.name), "elements=" + std::to_string(parameter.weight.size)});
    }
  }
  return lines;
}

/// The bytes of a weight.
template <class T>
std::string_view bytes_of(vector_view<T> values) {
  return {reinterpret_cast<char const*>(values.data),
          static_cast<std::size_t>(values.size) * sizeof(T)};
}

}  // namespace detail

/// Writes the weights of a model. Afterwards, also after a crash, the path holds either all of it
/// or what was there before.
///
/// fingerprint  text that says which settings the weights came from; load_checkpoint asks for it
/// Throws io_error if the file cannot be written.
template <lamina::tensor_backend Backend>
void save_checkpoint(std::string const& path, transformer<Backend> const& model,
                     std::string_view fingerprint) {
  std::string bytes;
  for (auto const& line : detail::checkpoint_lines(model, fingerprint)) {
    bytes += lamina::encode_record(line);
  }
  std::string data;
  for (index_t layer = lamina::outside_layers; layer < model.layer_count(); ++layer) {
    for (auto const& parameter : model.block(layer).parameters()) {
      data += detail::bytes_of(parameter.weight);
    }
  }
  bytes += lamina::encode_record({"data", lamina::hex_text(lamina::fnv1a_64(data))});
  lamina::write_file_atomically(path, bytes += data);
}

/// Reads the weights of a model of the same shape, scalar and settings. The model changes only if
/// everything is right.
///
/// Throws io_error if the file cannot be read, and format_error naming the file, what it has and
/// what was expected if it is not a checkpoint, of another version, shape or settings, truncated,
/// longer than it should be, or corrupt.
template <lamina::tensor_backend Backend>
void load_checkpoint(std::string const& path, transformer<Backend>& model,
                     std::string_view fingerprint) {
  std::string const file = lamina::read_file(path);
  std::string_view rest = file;
  auto const refuse = [&path](auto const&... what) {
    lamina::throw_format_error("decoder::load_checkpoint: '", path, "' ", what...);
  };
  if (!rest.starts_with(detail::checkpoint_magic)) {
    refuse("does not begin with '", detail::checkpoint_magic, "'");
  }
  std::vector<std::string> found;
  auto const next_line = [&](index_t number) {
    std::size_t const end = rest.find('\n');
    if (end == std::string_view::npos) {
      refuse("ends in line ", number, " after ", file.size(), " bytes: it is truncated");
    }
    if (!lamina::decode_record(rest.substr(0, end), found)) {
      refuse("has a wrong checksum in line ", number, ": it is corrupt");
    }
    rest.remove_prefix(end + 1);
  };

  index_t line = 0;
  for (auto const& expected : detail::checkpoint_lines(model, fingerprint)) {
    next_line(++line);
    for (std::size_t i = 0; i < expected.size() || i < found.size(); ++i) {
      std::string_view const has = i < found.size() ? found[i] : std::string_view("nothing more");
      std::string_view const wanted =
          i < expected.size() ? expected[i] : std::string_view("nothing more");
      if (has != wanted) refuse("has ", has, " in line ", line, ", expected ", wanted);
    }
  }
  next_line(++line);
  if (found.size() != 2 || found[0] != "data") {
    refuse("has ", found.empty() ? std::string_view("nothing") : found[0], " in line ", line,
           ", expected data");
  }
  std::size_t expected_size = 0;
  for (index_t layer = lamina::outside_layers; layer < model.layer_count(); ++layer) {
    for (auto const& parameter : model.block(layer).parameters()) {
      expected_size += detail::bytes_of(parameter.weight).size();
    }
  }
  if (rest.size() != expected_size) {
    refuse("has ", rest.size(), " bytes of data, expected ", expected_size,
           rest.size() < expected_size ? ": it is truncated" : ": something follows them");
  }
  if (lamina::hex_text(lamina::fnv1a_64(rest)) != found[1]) {
    refuse("has data with checksum ", lamina::hex_text(lamina::fnv1a_64(rest)), ", expected ",
           found[1], ": it is corrupt");
  }

  for (index_t layer = lamina::outside_layers; layer < model.layer_count(); ++layer) {
    for (auto const& parameter : model.block(layer).parameters()) {
      std::size_t const size = detail::bytes_of(parameter.weight).size();
      std::memcpy(parameter.weight.data, rest.data(), size);
      rest.remove_prefix(size);
    }
  }
}

}  // namespace decoder
