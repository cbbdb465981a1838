// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What training changed, as a file of its own: the tensors that differ from a base model, which
// model that is and which one they make of it.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/io/model_hash.hpp"
#include "lamina/io/record.hpp"
#include "lamina/io/safetensors.hpp"

LAMINA_NAMESPACE_BEGIN

/// Where a patch comes from, for its reader.
struct layer_patch_info {
  /// The layers that were trained, as text.
  std::string selection;
  /// Optimizer steps from the base to here.
  index_t step_count = 0;
  std::string lamina_version = version;
};

/// The tensors in which one model differs from another, with the hashes of both.
///
///   lamina::model_hash const base(parameters);                         // of the whole model
///   ...                                                                // train
///   lamina::layer_patch patch(base, parameters, {.selection = "13-22", .step_count = 100});
///   patch.save("layer.safetensors");
///
/// T  the type of the weights: a patch holds their bits and suits models of this type only.
///
/// A patch and a model trade places: apply() puts the patch's tensors into the model and the
/// model's into the patch, which from then on leads back; revert() undoes it, bit for bit. Only the
/// changed tensors are held, once.
template <storage_scalar T>
class layer_patch {
 public:
  struct tensor {
    std::string name;
    std::vector<index_t> shape;
    std::vector<T> values;
    std::uint64_t hash = 0;
  };

  /// Copies the tensors of `parameters`, the whole model, whose hash differs from that of `base`,
  /// whether they were selected or not.
  ///
  /// Throws config_error if the parameters are not the tensors of `base` or step_count is negative.
  layer_patch(model_hash const& base, std::vector<parameter_view<T>> const& parameters,
              layer_patch_info info = {})
      : info_(std::move(info)), base_hash_(base.value()) {
    model_hash const now(parameters);
    if (!std::ranges::equal(now.tensors(), base.tensors(), {}, &model_hash::tensor::name,
                            &model_hash::tensor::name)) {
      throw_config_error("layer_patch: the ", now.tensors().size(),
                         " parameters are not the tensors of the base, which are ",
                         base.tensors().size());
    }
    if (info_.step_count < 0) {
      throw_config_error("layer_patch: step_count is ", info_.step_count, ", expected 0 or more");
    }
    result_hash_ = now.value();
    for (parameter_view<T> const& parameter : parameters) {
      std::uint64_t const hash = now.find(parameter.name)->hash;
      if (hash == base.find(parameter.name)->hash) continue;
      tensors_.push_back({std::string(parameter.name),
                          {parameter.weight.size},
                          std::vector<T>(parameter.weight.begin(), parameter.weight.end()),
                          hash});
    }
    detail::sort_by_name(tensors_);
  }

  /// Reads a patch. Throws format_error naming the file, the value and what was expected if it is
  /// not a patch, of another type than T, or its tensors are not what their hash says.
  explicit layer_patch(safetensors_file const& file) {
    auto const entry = [&file](char const* key) -> std::string const& {
      auto const found = file.metadata().find(key);
      if (found == file.metadata().end()) {
        throw_format_error("layer_patch: '", file.source(), "' has no \"", key,
                           "\" in its metadata");
      }
      return found->second;
    };
    auto const hash = [&](char const* key) {
      std::string const& text = entry(key);
      std::uint64_t value = 0;
      std::from_chars(text.data(), text.data() + text.size(), value, 16);
      if (hex_text(value) != text) {
        throw_format_error("layer_patch: '", file.source(), "': ", key, " is \"",
                           text.substr(0, 100), "\", expected 16 hexadecimal digits");
      }
      return value;
    };
    if (entry("format") != format_name) {
      throw_format_error("layer_patch: '", file.source(), "': the format is \"",
                         entry("format").substr(0, 100), "\", expected \"", format_name, "\"");
    }
    info_ = {entry("selection"), 0, entry("lamina_version")};
    if (!parse_number(entry("step_count"), info_.step_count) || info_.step_count < 0) {
      throw_format_error("layer_patch: '", file.source(), "': step_count is \"",
                         entry("step_count").substr(0, 100), "\", expected 0 or more");
    }
    base_hash_ = hash("base_hash");
    result_hash_ = hash("result_hash");
    for (raw_tensor const& stored : file.tensors()) {
      if (stored.type != dtype_of<T>) {
        throw_format_error("layer_patch: '", file.source(), "': ", stored.name, " has the type ",
                           traits_of(stored.type).name, ", expected ", traits_of(dtype_of<T>).name);
      }
      std::vector<T> values(static_cast<std::size_t>(element_count(stored.shape)));
      copy_values(stored, vector_view<T>(values), file.source());
      std::uint64_t const hash_of_values = tensor_hash<T>(stored.name, values);
      tensors_.push_back({stored.name, stored.shape, std::move(values), hash_of_values});
    }
    if (content_hash() != hash("content_hash")) {
      throw_format_error("layer_patch: '", file.source(), "' has tensors of hash ",
                         hex_text(content_hash()), ", expected ", entry("content_hash"),
                         ": it is corrupt");
    }
  }

  layer_patch_info const& info() const noexcept { return info_; }
  /// The model that apply() or, if the patch is applied, revert() takes, and the one it leaves.
  std::uint64_t base_hash() const noexcept { return base_hash_; }
  std::uint64_t result_hash() const noexcept { return result_hash_; }
  bool applied() const noexcept { return applied_; }
  /// What the patch holds, sorted by name.
  std::vector<tensor> const& tensors() const noexcept { return tensors_; }

  /// Names the shape that a tensor has in files; without it a tensor is flat. Throws config_error
  /// if the patch has no such tensor, shape_error if the shape has another number of elements.
  void reshape(std::string_view name, std::vector<index_t> shape) {
    tensor* const place = detail::find_by_name(tensors_, name);
    if (place == nullptr) {
      throw_config_error("layer_patch::reshape: the patch has no tensor ", name);
    }
    if (element_count(shape) != static_cast<index_t>(place->values.size())) {
      throw_shape_error("layer_patch::reshape: ", name, " has ", place->values.size(),
                        " elements, the shape has ", element_count(shape));
    }
    place->shape = std::move(shape);
  }

  /// Writes the patch as it stands, whole or not at all: of an applied patch, the way back.
  /// Throws as write_safetensors does.
  void save(std::string const& path) const {
    std::vector<raw_tensor> stored;
    for (tensor const& t : tensors_) {
      stored.push_back({t.name, dtype_of<T>, t.shape, bytes_of(vector_view<T const>(t.values))});
    }
    write_safetensors(path, std::move(stored),
                      {{"format", format_name},
                       {"base_hash", hex_text(base_hash_)},
                       {"result_hash", hex_text(result_hash_)},
                       {"content_hash", hex_text(content_hash())},
                       {"selection", info_.selection},
                       {"step_count", std::to_string(info_.step_count)},
                       {"lamina_version", info_.lamina_version}});
  }

  /// Checks that `parameters`, the whole model, are the model of base_hash() and that the patch
  /// makes that of result_hash() of it. Throws config_error naming both hashes, or the tensor, if
  /// not.
  void verify(std::vector<parameter_view<T>> const& parameters) const {
    check("layer_patch::verify", parameters);
  }

  /// Makes the model of base_hash() that of result_hash(). Throws config_error, before anything
  /// changes, as verify() does or if the patch is applied already.
  void apply(std::vector<parameter_view<T>> const& parameters) {
    if (applied_) throw_config_error("layer_patch::apply: the patch is applied already");
    exchange("layer_patch::apply", parameters);
  }

  /// Undoes apply(): the model has the bits it had. Throws config_error, before anything changes,
  /// as verify() does or if the patch is not applied.
  void revert(std::vector<parameter_view<T>> const& parameters) {
    if (!applied_) throw_config_error("layer_patch::revert: the patch is not applied");
    exchange("layer_patch::revert", parameters);
  }

 private:
  template <storage_scalar U>
  friend layer_patch<U> compose(layer_patch<U> const& first, layer_patch<U> const& second);

  static constexpr char const* format_name = "lamina layer patch 1";

  std::uint64_t content_hash() const noexcept {
    std::uint64_t sum = 0;
    for (tensor const& t : tensors_) sum += t.hash;
    return sum;
  }

  model_hash check(char const* function, std::vector<parameter_view<T>> const& parameters) const {
    model_hash now(parameters);
    if (now.value() != base_hash_) {
      throw_config_error(function, ": the model has the hash ", hex_text(now.value()),
                         ", the patch is for ", hex_text(base_hash_));
    }
    std::uint64_t after = now.value();
    for (tensor const& t : tensors_) {
      auto const same_name = [&t](parameter_view<T> const& p) { return p.name == t.name; };
      auto const parameter = std::ranges::find_if(parameters, same_name);
      if (parameter == parameters.end()) {
        throw_config_error(function, ": the model has no parameter ", t.name);
      }
      if (parameter->weight.size != static_cast<index_t>(t.values.size())) {
        throw_config_error(function, ": ", t.name, " has ", parameter->weight.size,
                           " elements in the model, ", t.values.size(), " in the patch");
      }
      after += t.hash - now.find(t.name)->hash;
    }
    if (after != result_hash_) {
      throw_config_error(function, ": the patch would make a model of hash ", hex_text(after),
                         ", expected ", hex_text(result_hash_));
    }
    return now;
  }

  void exchange(char const* function, std::vector<parameter_view<T>> const& parameters) {
    model_hash const before = check(function, parameters);
    for (parameter_view<T> const& parameter : parameters) {
      tensor* const place = detail::find_by_name(tensors_, parameter.name);
      if (place == nullptr) continue;
      std::swap_ranges(place->values.begin(), place->values.end(), parameter.weight.begin());
      place->hash = before.find(parameter.name)->hash;
    }
    std::swap(base_hash_, result_hash_);
    applied_ = !applied_;
  }

  layer_patch_info info_;
  std::uint64_t base_hash_ = 0;
  std::uint64_t result_hash_ = 0;
  std::vector<tensor> tensors_;  // sorted by name
  bool applied_ = false;
};

/// Two patches as one: `second` made on top of `first`, or both of one base and without a common
/// tensor. Everything else is a config_error.
template <storage_scalar T>
layer_patch<T> compose(layer_patch<T> const& first, layer_patch<T> const& second) {
  using tensor = typename layer_patch<T>::tensor;
  layer_patch<T> result = second;
  result.applied_ = false;
  result.base_hash_ = first.base_hash_;
  result.info_.step_count += first.info_.step_count;
  if (first.info_.selection != second.info_.selection) {
    result.info_.selection = first.info_.selection + "," + second.info_.selection;
  }
  bool const chained = second.base_hash_ == first.result_hash_;
  if (!chained && second.base_hash_ != first.base_hash_) {
    throw_config_error("compose: the second patch is of base ", hex_text(second.base_hash_),
                       ", expected ", hex_text(first.result_hash_), ", what the first makes, or ",
                       hex_text(first.base_hash_), ", its base");
  }
  if (!chained) result.result_hash_ += first.result_hash_ - first.base_hash_;
  for (tensor const& t : first.tensors_) {
    if (detail::find_by_name(second.tensors_, t.name) == nullptr) {
      result.tensors_.push_back(t);
    } else if (!chained) {
      throw_config_error("compose: both patches of base ", hex_text(first.base_hash_), " have ",
                         t.name, ", expected no common tensor");
    }
  }
  detail::sort_by_name(result.tensors_);
  return result;
}

LAMINA_NAMESPACE_END
