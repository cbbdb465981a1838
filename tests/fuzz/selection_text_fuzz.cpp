// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// parse_layers and parse_selection: a selection or a selection_error, and what is printed is read
// back as the same. The first byte says how many layers there are and whether tensors are known.
#include "lamina/layers/tensor_selection_text.hpp"

#include "tests/fuzz/require.hpp"

namespace {

// Layers of two kinds, one in three without attention; embeddings, final norm, and a vision tower.
std::vector<std::string> names_of(lamina::index_t layer_count) {
  std::vector<std::string> names = {"model.embed_tokens.weight", "model.norm.weight",
                                    "visual.blocks.0.attn.qkv.weight"};
  for (lamina::index_t layer = 0; layer < layer_count; ++layer) {
    std::string const prefix = "model.layers." + std::to_string(layer) + ".";
    for (char const* part : {"mlp.up_proj", "mlp.down_proj"}) names.push_back(prefix + part);
    if (layer % 3 == 0) continue;
    for (char const* part : {"self_attn.q_proj", "self_attn.q_proj.bias", "self_attn.o_proj"}) {
      names.push_back(prefix + part);
    }
  }
  return names;
}

void check_layers(std::string_view text, lamina::index_t layer_count) {
  try {
    lamina::layer_set const layers = lamina::parse_layers(text, layer_count);
    require(layers.highest() < layer_count);
    require(lamina::parse_layers(lamina::to_text(layers), layer_count) == layers);
  } catch (lamina::selection_error const&) {
  }
}

void check_selection(std::string_view text, lamina::index_t layer_count,
                     std::vector<lamina::model_tensor> const& tensors) {
  auto const profiles = [&](std::string_view name) {
    std::vector<double> values(static_cast<std::size_t>(name == "short" ? 1 : layer_count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i * 7 % 5);
    return name == "none" ? std::vector<double>() : values;
  };
  try {
    auto const selection = lamina::parse_selection(text, layer_count, tensors, profiles);
    std::string const printed = lamina::to_text(selection);
    auto const again = lamina::parse_selection(printed, layer_count, tensors);
    require(again == selection && again.covering() == selection.covering());
    require(lamina::to_text(again) == printed);
    require(!selection.covering().empty());
    require(selection.covering().layers().highest() < layer_count);
    for (lamina::model_tensor const& tensor : tensors) {
      if (selection.contains(tensor)) {
        require(selection.covering().contains(tensor.layer, tensor.role));
      }
    }
  } catch (lamina::selection_error const&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static std::vector<std::string> const names = names_of(8);
  static std::vector<lamina::model_tensor> const tensors = lamina::model_tensors(names);
  if (size == 0) return 0;
  std::string_view const text(reinterpret_cast<char const*>(data + 1), size - 1);
  bool const named = data[0] % 2 == 0;
  lamina::index_t const layer_count = named ? 8 : 1 + data[0] * 2;
  check_layers(text, layer_count);
  check_selection(text, layer_count, named ? tensors : std::vector<lamina::model_tensor>());
  return 0;
}
