// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The safetensors format: reading memory-mapped files, whole or in shards, with every field of the
// header checked; writing them tensor by tensor, whole or not at all.
// Source: huggingface/safetensors, README.md, "Format".
#pragma once

#include <algorithm>
#include <map>

#include "lamina/io/json.hpp"
#include "lamina/io/mapped_file.hpp"
#include "lamina/io/raw_tensor.hpp"

LAMINA_NAMESPACE_BEGIN

/// Free text that a file carries beside its tensors.
using safetensors_metadata = std::map<std::string, std::string>;

/// Most bytes of a header.
/// Source: huggingface/safetensors, safetensors/src/tensor.rs, `MAX_HEADER_SIZE`.
inline constexpr index_t safetensors_header_limit = 100'000'000;

namespace detail {

// What one file holds; tensors in the order of their bytes.
struct safetensors_content {
  std::vector<raw_tensor> tensors;
  safetensors_metadata metadata;
};

inline dtype safetensors_dtype(json_view const& field) {
  for (dtype_traits const& known : dtypes) {
    if (known.name == field.text()) return known.type;
  }
  throw_format_error(field.where(), " is \"", field.text().substr(0, 100),
                     "\", expected a type of the format such as F32, F16 or BF16");
}

inline raw_tensor safetensors_tensor(std::string const& name, json_view const& entry,
                                     std::string_view data) {
  for (auto const& [field, value] : entry.object()) {
    if (field != "dtype" && field != "shape" && field != "data_offsets") {
      throw_format_error(entry.where(), " has the field \"", field.substr(0, 100),
                         "\", expected dtype, shape and data_offsets");
    }
  }
  raw_tensor tensor{name, safetensors_dtype(entry.at("dtype")), {}, {}};
  json_view const shape = entry.at("shape");
  for (index_t d = 0; d < static_cast<index_t>(shape.array().size()); ++d) {
    tensor.shape.push_back(shape.at(d).integer(0));
  }
  json_view const offsets = entry.at("data_offsets");
  if (offsets.array().size() != 2) {
    throw_format_error(offsets.where(), " has ", offsets.array().size(), " elements, expected 2");
  }
  index_t const data_size = static_cast<index_t>(data.size());
  index_t const begin = offsets.at(index_t{0}).integer(0, data_size);
  index_t const end = offsets.at(1).integer(begin, data_size);
  index_t const size = byte_count(tensor);
  if (size != end - begin) {
    throw_format_error(offsets.where(), " spans ", end - begin, " bytes, expected ",
                       size < 0 ? "a size that its shape can have" : std::to_string(size),
                       " by its shape and type");
  }
  tensor.bytes =
      data.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  return tensor;
}

// Checks everything that can be checked. Tensors refer to `file`.
inline safetensors_content parse_safetensors(std::string_view file, std::string_view source) {
  std::uint64_t header_size = 0;
  if (file.size() < sizeof header_size) {
    throw_format_error("safetensors: '", source, "' has ", file.size(),
                       " bytes, expected at least 8 for the size of the header at byte 0");
  }
  std::memcpy(&header_size, file.data(), sizeof header_size);
  std::uint64_t const limit =
      (std::min)(static_cast<std::uint64_t>(safetensors_header_limit), file.size() - 8);
  if (header_size > limit) {
    throw_format_error("safetensors: '", source, "': the size of the header at byte 0 is ",
                       header_size, ", expected at most ", limit,
                       limit == static_cast<std::uint64_t>(safetensors_header_limit)
                           ? ", the limit of the format"
                           : ", what is left of the file");
  }
  std::string_view const text = file.substr(8, header_size);
  std::string_view const data = file.substr(8 + header_size);
  if (!text.starts_with('{')) {
    throw_format_error("safetensors: '", source, "': the header at byte 8 does not begin with {");
  }
  nlohmann::json const document = parse_json(text, source);
  json_view const header(document, source);
  safetensors_content content;
  for (auto const& [name, value] : header.object()) {
    json_view const entry = header.at(name);
    if (name == "__metadata__") {
      for (auto const& [key, text_of_key] : entry.object()) {
        content.metadata.emplace(key, entry.at(key).text());
      }
    } else {
      content.tensors.push_back(safetensors_tensor(name, entry, data));
    }
  }
  // Every byte of the file belongs to one tensor.
  std::ranges::sort(content.tensors, [](raw_tensor const& a, raw_tensor const& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  char const* expected = data.data();
  auto const offset_of = [&data](char const* place) { return index_t{place - data.data()}; };
  for (raw_tensor const& tensor : content.tensors) {
    if (tensor.bytes.data() != expected) {
      throw_format_error("safetensors: '", source, "': ", tensor.name, " begins at byte ",
                         offset_of(tensor.bytes.data()), " of the data, expected ",
                         offset_of(expected), ": tensors ",
                         tensor.bytes.data() < expected ? "overlap" : "leave a hole");
    }
    expected += tensor.bytes.size();
  }
  if (expected != data.data() + data.size()) {
    throw_format_error("safetensors: '", source, "' has ", data.size(), " bytes of data, expected ",
                       offset_of(expected), " by its header");
  }
  return content;
}

}  // namespace detail

/// Tensors of a safetensors file, of the shards of a model, or of bytes in memory.
///
///   lamina::safetensors_file const file("SmolLM2-135M");
///   file.read("model.norm.weight", lamina::vector_view<float>(norm));
///
/// Files are mapped: what is not read costs no memory, and copies of the bytes are the caller's.
class safetensors_file {
 public:
  /// path  a .safetensors file; a model.safetensors.index.json; or a directory that holds a
  ///       model.safetensors or, failing that, the index of its shards
  ///
  /// Throws io_error if a file cannot be read, and format_error naming the file, the byte or the
  /// tensor, the value and what was expected, if a header or the index is not what it should be.
  explicit safetensors_file(std::string const& path) : source_(path) {
    struct ::stat status {};
    if (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
      source_ = path + "/model.safetensors";
      if (::access(source_.c_str(), F_OK) != 0) source_ += ".index.json";
    }
    if (source_.ends_with(".json")) {
      open_shards();
    } else {
      mapped_file const& file = files_.emplace_back(source_);
      adopt(detail::parse_safetensors(file.bytes(), source_));
    }
  }

  /// Tensors of bytes that the caller keeps; `source` is what errors call them.
  static safetensors_file from_bytes(std::string_view bytes, std::string source) {
    safetensors_file result;
    result.source_ = std::move(source);
    result.adopt(detail::parse_safetensors(bytes, result.source_));
    return result;
  }

  /// The file that was read; of a sharded model, its index.
  std::string const& source() const noexcept { return source_; }
  /// All tensors, sorted by name. Their bytes stay where they are while this object or one it was
  /// moved to lives.
  std::vector<raw_tensor> const& tensors() const noexcept { return tensors_; }
  /// The file's `__metadata__`; of a sharded model, that of its shards together, the first of
  /// equal keys.
  safetensors_metadata const& metadata() const noexcept { return metadata_; }

  /// The tensor of that name, or null.
  raw_tensor const* find(std::string_view name) const noexcept {
    return detail::find_by_name(tensors_, name);
  }
  /// The tensor of that name. Throws format_error if there is none.
  raw_tensor const& at(std::string_view name) const {
    raw_tensor const* const tensor = find(name);
    if (tensor == nullptr) {
      throw_format_error("safetensors: '", source_, "' has no tensor ", name, " among its ",
                         tensors_.size());
    }
    return *tensor;
  }
  /// Copies a tensor's elements as copy_values does. Throws format_error if there is no such tensor
  /// or its type is none lamina computes with, shape_error if `values` has another size.
  template <storage_scalar T>
  void read(std::string_view name, vector_view<T> values) const {
    ::lamina::copy_values(at(name), values, source_);
  }

 private:
  safetensors_file() = default;

  void adopt(detail::safetensors_content content) {
    std::ranges::move(content.tensors, std::back_inserter(tensors_));
    detail::sort_by_name(tensors_);
    metadata_.merge(content.metadata);
  }

  // The index says which shard has which tensor; tensors it does not name are not of the model.
  void open_shards() {
    nlohmann::json const document = parse_json(read_file(source_), source_);
    json_view const map = json_view(document, source_).at("weight_map");
    std::map<std::string, std::vector<std::string>> names_of;
    for (auto const& [name, shard] : map.object()) {
      std::string const& file_name = map.at(name).text();
      if (file_name.empty() || file_name.find('/') != std::string::npos) {
        throw_format_error(map.at(name).where(), " is \"", file_name.substr(0, 100),
                           "\", expected the name of a file beside the index");
      }
      names_of[file_name].push_back(name);
    }
    for (auto const& [file_name, names] : names_of) {
      mapped_file const& file =
          files_.emplace_back(detail::parent_directory(source_) + "/" + file_name);
      detail::safetensors_content content = detail::parse_safetensors(file.bytes(), file.path());
      detail::sort_by_name(content.tensors);
      std::erase_if(content.tensors, [&names = names](raw_tensor const& tensor) {
        return !std::ranges::binary_search(names, tensor.name);
      });
      for (std::size_t i = 0; i < names.size(); ++i) {
        if (i == content.tensors.size() || content.tensors[i].name != names[i]) {
          throw_format_error("safetensors: '", source_, "': ", names[i], " is not in ", file_name,
                             ", where the weight_map has it");
        }
      }
      adopt(std::move(content));
    }
  }

  std::string source_;
  std::vector<mapped_file> files_;
  std::vector<raw_tensor> tensors_;
  safetensors_metadata metadata_;
};

/// Writes a safetensors file piece by piece, so that nobody needs the whole model in memory. The
/// path changes at commit(), as atomic_file says, and not at all before.
///
///   lamina::safetensors_writer writer(path, layout);   // names, types, shapes
///   for (...) writer.write(values_of_the_next_tensor);
///   writer.commit();
class safetensors_writer {
 public:
  /// layout  the tensors in the order they will be written; their bytes are not looked at. A tensor
  ///         lies aligned if those of wider elements come before it.
  ///
  /// Throws config_error if a name is used twice, is "__metadata__" or not UTF-8, a shape has no
  /// size in bytes, or the header passes the format's limit; io_error if the file cannot be made.
  safetensors_writer(std::string const& path, std::vector<raw_tensor> const& layout,
                     safetensors_metadata const& metadata = {})
      : safetensors_writer(path, layout, header_of(path, layout, metadata)) {}

  /// The next bytes, all of one tensor. Throws shape_error if they are more than it has left.
  void write_bytes(std::string_view bytes) {
    if (bytes.empty()) return;
    take(section(), static_cast<index_t>(bytes.size()));
    file_.write(bytes);
  }

  /// The next elements, all of one tensor, rounded to its type as copy_values does. Throws
  /// shape_error if they are more than it has left, config_error if its type is none lamina
  /// computes with.
  template <storage_scalar T>
  void write(vector_view<T const> values) {
    if (values.empty()) return;
    unwritten& tensor = section();
    if (tensor.type == dtype_of<T>) return write_bytes(bytes_of(values));
    bool const known = detail::with_scalar_of(tensor.type, [&]<class To>(To) {
      take(tensor, values.size * static_cast<index_t>(sizeof(To)));
      To block[1024];
      while (!values.empty()) {
        index_t const count = (std::min)(values.size, index_t{1024});
        detail::convert_elements<T>(bytes_of(values).data(), vector_view<To>(block, count));
        file_.write(bytes_of(vector_view<To const>(block, count)));
        values = values.subview(count, values.size - count);
      }
    });
    if (!known) {
      throw_config_error("safetensors_writer: ", tensor.name, " has the type ",
                         traits_of(tensor.type).name,
                         ", expected F64, F32, F16 or BF16 for scalars");
    }
  }

  /// Puts the file in its place. Throws shape_error if something is left to write.
  void commit() {
    if (skip_full() < sections_.size()) {
      throw_shape_error("safetensors_writer: ", sections_[current_].name, " has ",
                        sections_[current_].left, " bytes left to write");
    }
    file_.commit();
  }

 private:
  struct unwritten {
    std::string name;
    dtype type;
    index_t left;
  };

  safetensors_writer(std::string const& path, std::vector<raw_tensor> const& layout,
                     std::string const& header)
      : file_(path, "safetensors_writer") {
    for (raw_tensor const& tensor : layout) {
      sections_.push_back({tensor.name, tensor.type, byte_count(tensor)});
    }
    std::uint64_t const size = header.size();
    file_.write({reinterpret_cast<char const*>(&size), sizeof size});
    file_.write(header);
  }

  static std::string header_of(std::string const& path, std::vector<raw_tensor> const& layout,
                               safetensors_metadata const& metadata) {
    nlohmann::json header(nlohmann::json::value_t::object);
    if (!metadata.empty()) header["__metadata__"] = metadata;
    index_t begin = 0;
    for (raw_tensor const& tensor : layout) {
      index_t const size = byte_count(tensor);
      index_t end = 0;
      if (size < 0 || __builtin_add_overflow(begin, size, &end)) {
        throw_config_error("safetensors_writer: '", path, "': ", tensor.name,
                           " has a shape and type without a size in bytes");
      }
      if (tensor.name == "__metadata__" || header.contains(tensor.name)) {
        throw_config_error("safetensors_writer: '", path, "': the name ", tensor.name,
                           " is used twice or __metadata__");
      }
      header[tensor.name] = {{"dtype", traits_of(tensor.type).name},
                             {"shape", tensor.shape},
                             {"data_offsets", {begin, end}}};
      begin = end;
    }
    // Bytes that are not UTF-8 are replaced, and so read back as something else.
    std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (nlohmann::json::parse(text, nullptr, false) != header) {
      throw_config_error("safetensors_writer: '", path, "': a name or the metadata is not UTF-8");
    }
    text.resize((text.size() + 7) / 8 * 8, ' ');
    if (static_cast<index_t>(text.size()) > safetensors_header_limit) {
      throw_config_error("safetensors_writer: '", path, "': the header has ", text.size(),
                         " bytes, expected at most ", safetensors_header_limit);
    }
    return text;
  }

  // The first tensor that has something left to write.
  std::size_t skip_full() noexcept {
    while (current_ < sections_.size() && sections_[current_].left == 0) ++current_;
    return current_;
  }
  unwritten& section() {
    if (skip_full() == sections_.size()) {
      throw_shape_error("safetensors_writer: all tensors are written, expected commit()");
    }
    return sections_[current_];
  }
  static void take(unwritten& tensor, index_t size) {
    if (size > tensor.left) {
      throw_shape_error("safetensors_writer: ", size, " bytes are given, ", tensor.name, " has ",
                        tensor.left, " left to write");
    }
    tensor.left -= size;
  }

  std::vector<unwritten> sections_;
  std::size_t current_ = 0;
  atomic_file file_;
};

/// Writes tensors, wider elements first, so that each is aligned. Afterwards, also after a crash,
/// the path holds all of it or what was there before.
///
/// Throws as safetensors_writer does, and shape_error if a tensor's bytes are not what its shape
/// and type have.
inline void write_safetensors(std::string const& path, std::vector<raw_tensor> tensors,
                              safetensors_metadata const& metadata = {}) {
  for (raw_tensor const& tensor : tensors) {
    if (static_cast<index_t>(tensor.bytes.size()) != byte_count(tensor)) {
      throw_shape_error("write_safetensors: '", path, "': ", tensor.name, " has ",
                        tensor.bytes.size(), " bytes, expected ", byte_count(tensor),
                        " by its shape and type");
    }
  }
  std::ranges::stable_sort(
      tensors, {}, [](raw_tensor const& tensor) { return -traits_of(tensor.type).bit_count; });
  safetensors_writer writer(path, tensors, metadata);
  for (raw_tensor const& tensor : tensors) writer.write_bytes(tensor.bytes);
  writer.commit();
}

LAMINA_NAMESPACE_END
