// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Models as others publish them: opened and checked whole, then read into a transformer.
#pragma once

#include <algorithm>
#include <optional>

#include "examples/decoder/checkpoint.hpp"
#include "examples/decoder/gguf_model.hpp"
#include "examples/decoder/hf_config.hpp"
#include "lamina/io/safetensors.hpp"

namespace decoder {

/// A model in files: its shape and its weights, which stay in the files until load() reads them.
class pretrained {
 public:
  /// path  a directory with a config.json and the model's safetensors, whole or in shards; or a
  ///       GGUF file
  ///
  /// Throws io_error if a file cannot be read; format_error naming the file and what is wrong if it
  /// is not what it should be, if the model is not a Llama, Qwen2 or Qwen3, or if a tensor is
  /// missing, there without need, or of another type or shape than it should be.
  explicit pretrained(std::string path) : path_(std::move(path)) {
    struct ::stat status {};
    bool const is_directory = ::stat(path_.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
    if (is_directory) {
      open_directory();
    } else {
      file_.emplace(path_);
      open_gguf(file_->bytes());
    }
    match_all();
  }

  /// The same from the bytes of a GGUF file, which the caller keeps; `source` is what errors call
  /// them.
  static pretrained from_gguf(std::string_view bytes, std::string source) {
    pretrained result;
    result.path_ = std::move(source);
    result.open_gguf(bytes);
    result.match_all();
    return result;
  }

  config const& shape() const { return shape_; }
  std::string const& path() const { return path_; }
  /// The GGUF file, or null: its metadata describe the tokenizer too.
  gguf const* metadata() const { return gguf_ ? &*gguf_ : nullptr; }

  /// Text that differs where the shape or a weight differs: the last part of the path, the size of
  /// the weights and a hash. Reads all of them.
  std::string identity() const {
    std::string lines = lamina::encode_record(shape_fields(shape_));
    index_t bytes = 0;
    for (stored_tensor const& tensor : matched_) {
      lines +=
          lamina::encode_record({std::string(tensor.name), std::string(format_of(tensor.type).name),
                                 lamina::hex_text(lamina::fnv1a_64(tensor.bytes))});
      bytes += static_cast<index_t>(tensor.bytes.size());
    }
    return lamina::detail::join(std::string_view(path_).substr(path_.find_last_of('/') + 1), ", ",
                                matched_.size(), " tensors, ", bytes, " bytes, fnv1a ",
                                lamina::hex_text(lamina::fnv1a_64(lines)));
  }

  /// Reads the weights into a model of this shape. Throws config_error for another shape.
  template <lamina::tensor_backend Backend>
  void load(transformer<Backend>& model) const {
    if (!(model.shape() == shape_)) {
      lamina::throw_config_error("decoder::pretrained: the model has another shape than '", path_,
                                 "'");
    }
    auto next = matched_.begin();
    for (index_t layer = lamina::outside_layers; layer < shape_.layer_count; ++layer) {
      for (auto const& parameter : model.block(layer).parameters()) {
        read(*next++, parameter.role, parameter.weight);
      }
    }
  }

 private:
  pretrained() = default;

  void open_directory() {
    shape_ = read_hf_config(path_ + "/config.json");
    weights_.emplace(path_);
    for (lamina::raw_tensor const& tensor : weights_->tensors()) {
      // Frequencies, which some old files carry.
      if (tensor.name.ends_with(".rotary_emb.inv_freq")) continue;
      stored_.push_back({tensor.name, tensor.shape, stored_type_of(tensor), tensor.bytes});
    }
  }
  void open_gguf(std::string_view bytes) {
    gguf_.emplace(bytes, path_);
    shape_ = gguf_config(*gguf_);
    interleaved_heads_ = has_interleaved_heads(*gguf_);
    for (stored_tensor const& tensor : gguf_->tensors()) {
      if (tensor.name != "rope_freqs.weight") stored_.push_back(tensor);
    }
  }
  stored_type stored_type_of(lamina::raw_tensor const& tensor) const {
    switch (tensor.type) {
      case lamina::dtype::f32: return stored_type::f32;
      case lamina::dtype::f16: return stored_type::f16;
      case lamina::dtype::bf16: return stored_type::bf16;
      default: break;
    }
    refuse("has tensor '", tensor.name, "' of type ", lamina::traits_of(tensor.type).name,
           ", expected F32, F16 or BF16");
  }

  // Finds every tensor of the model among those stored, in the model's order; nothing may be left.
  void match_all() {
    std::sort(stored_.begin(), stored_.end(), by_name);
    std::vector<std::string_view> used;
    auto const match = [&](tensor_spec const& spec, std::string const& prefix) {
      if (spec.rows == 0) return;
      stored_tensor const& tensor = find(spec, prefix + spec.name);
      matched_.push_back(tensor);
      used.push_back(tensor.name);
    };
    for (tensor_spec const& spec : outer_tensor_specs(shape_)) match(spec, "");
    if (shape_.tied_head) match_tied_head(used);
    auto const specs = layer_tensor_specs(shape_);
    for (index_t layer = 0; layer < shape_.layer_count; ++layer) {
      std::string const prefix = "model.layers." + std::to_string(layer) + ".";
      for (tensor_spec const& spec : specs) match(spec, prefix);
    }
    std::sort(used.begin(), used.end());
    for (stored_tensor const& tensor : stored_) {
      if (!std::binary_search(used.begin(), used.end(), tensor.name)) {
        refuse("has tensor '", tensor.name, "', which the model does not have");
      }
    }
  }
  // The tensor of that name, or null.
  stored_tensor const* find(std::string_view name) const {
    auto const found =
        std::lower_bound(stored_.begin(), stored_.end(), stored_tensor{name}, by_name);
    return found != stored_.end() && found->name == name ? &*found : nullptr;
  }
  stored_tensor const& find(tensor_spec const& spec, std::string const& hf_name) const {
    std::string const name = gguf_ ? gguf_name(hf_name) : hf_name;
    std::vector<index_t> expected{spec.cols};
    if (spec.decays()) expected.insert(expected.begin(), spec.rows);
    stored_tensor const* const tensor = find(name);
    if (tensor == nullptr) refuse("has no tensor '", name, "', expected one of ", text(expected));
    if (tensor->shape != expected) {
      refuse("has tensor '", name, "' of shape ", text(tensor->shape), ", expected ",
             text(expected));
    }
    return *tensor;
  }
  // A tied head may be in the file if it is what the embedding is.
  void match_tied_head(std::vector<std::string_view>& used) const {
    stored_tensor const* const head = find("lm_head.weight");
    if (head == nullptr) return;
    if (head->type != matched_.front().type || head->bytes != matched_.front().bytes) {
      refuse("has tensor 'lm_head.weight' other than the embedding, to which the model ties it");
    }
    used.push_back(head->name);
  }

  template <class T>
  void read(stored_tensor const& tensor, lamina::parameter_role role, vector_view<T> values) const {
    bool const query = role == lamina::parameter_role::attention_query;
    if (!interleaved_heads_ || !(query || role == lamina::parameter_role::attention_key)) {
      decode_stored(tensor.type, tensor.bytes.data(), values);
      return;
    }
    index_t const rows = query ? shape_.query_width() : shape_.key_width();
    index_t const cols = values.size / rows, half = shape_.head_width / 2;
    index_t const row_bytes = static_cast<index_t>(tensor.bytes.size()) / rows;
    for (index_t row = 0; row < rows; ++row) {
      index_t const in_head = row % shape_.head_width;
      index_t const from = row - in_head + 2 * (in_head % half) + in_head / half;
      decode_stored(tensor.type, tensor.bytes.data() + from * row_bytes,
                    vector_view<T>{values.data + row * cols, cols});
    }
  }

  template <class... What>
  [[noreturn]] void refuse(What const&... what) const {
    lamina::throw_format_error("decoder::pretrained: '", path_, "' ", what...);
  }
  static bool by_name(stored_tensor const& a, stored_tensor const& b) { return a.name < b.name; }
  static std::string text(std::vector<index_t> const& shape) {
    std::string result = "[";
    for (index_t const size : shape) {
      if (result.size() > 1) result += ", ";
      result += std::to_string(size);
    }
    return result + "]";
  }

  std::string path_;
  std::optional<lamina::safetensors_file> weights_;  // of a directory
  std::optional<lamina::mapped_file> file_;          // of a GGUF file
  std::optional<gguf> gguf_;
  config shape_;
  bool interleaved_heads_ = false;
  std::vector<stored_tensor> stored_;   // by name
  std::vector<stored_tensor> matched_;  // in the order of the model's parameters
};

/// A model with the weights of a file. Throws what the constructors throw.
template <lamina::tensor_backend Backend>
transformer<Backend> load_pretrained(Backend backend, pretrained const& source) {
  transformer<Backend> model(std::move(backend), source.shape());
  source.load(model);
  return model;
}

}  // namespace decoder
