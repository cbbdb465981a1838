// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Any bytes as a layer patch: refused, or it goes into a model it fits and comes out again, and is
// refused by every other.
#include "lamina/io/layer_patch.hpp"
#include "tests/fuzz/require.hpp"

namespace {

using patch = lamina::layer_patch<float>;

template <class Call>
bool refused(Call const& call) {
  try {
    call();
  } catch (lamina::config_error const&) {
    return true;
  }
  return false;
}

std::string bytes_of(std::vector<std::vector<float>> const& weights) {
  std::string all;
  for (auto const& w : weights) all += lamina::bytes_of(lamina::vector_view<float const>(w));
  return all;
}

// A model of zeros with a patch's tensors and one more.
void try_on(patch p) {
  std::vector<std::vector<float>> weights{{1, 2}};
  std::vector<lamina::parameter_view<float>> parameters(1);
  std::string const other = "a tensor of no patch";
  parameters[0].name = other;
  std::vector<std::string> names;
  for (auto const& t : p.tensors()) {
    if (t.name.empty() || t.name == other) return;
    names.push_back(t.name);
    weights.emplace_back(t.values.size());
    parameters.emplace_back();
  }
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (i > 0) parameters[i].name = names[i - 1];
    parameters[i].weight = weights[i];
  }
  std::string const before = bytes_of(weights);
  require(refused([&] { p.verify(parameters); }));
  require(refused([&] { p.apply(parameters); }));
  require(refused([&] { p.revert(parameters); }));
  require(bytes_of(weights) == before);

  // The same change as a patch of this model.
  lamina::model_hash const base(parameters);
  for (std::size_t i = 1; i < weights.size(); ++i) weights[i] = p.tensors()[i - 1].values;
  patch fitting(base, parameters);
  std::string const after = bytes_of(weights);
  require(fitting.tensors().size() <= p.tensors().size());
  for (std::size_t i = 1; i < weights.size(); ++i) weights[i].assign(weights[i].size(), 0.f);
  fitting.apply(parameters);
  require(bytes_of(weights) == after);
  fitting.revert(parameters);
  require(bytes_of(weights) == before);
  patch const twice = compose(fitting, patch(lamina::model_hash(parameters), parameters));
  require(twice.result_hash() == fitting.result_hash());
}

void read_all(std::string_view bytes) {
  try {
    try_on(patch(lamina::safetensors_file::from_bytes(bytes, "fuzz")));
  } catch (lamina::format_error const&) {
  }
}

// Mutations seldom keep the hash of the tensors right.
void mend_content_hash(std::string& bytes) {
  std::string_view const key = "\"content_hash\":\"";
  std::size_t const place = bytes.find(key);
  if (place == std::string::npos || place + key.size() + 16 > bytes.size()) return;
  try {
    std::uint64_t sum = 0;
    auto const file = lamina::safetensors_file::from_bytes(bytes, "fuzz");
    for (lamina::raw_tensor const& tensor : file.tensors()) {
      std::vector<float> values(static_cast<std::size_t>(lamina::element_count(tensor.shape)));
      file.read(tensor.name, lamina::vector_view<float>(values));
      sum += lamina::tensor_hash<float>(tensor.name, values);
    }
    bytes.replace(place + key.size(), 16, lamina::hex_text(sum));
  } catch (lamina::format_error const&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  std::string bytes(reinterpret_cast<char const*>(data), size);
  read_all(bytes);
  std::size_t const end = bytes.rfind('}');
  if (end == std::string::npos || end < 8) return 0;
  std::uint64_t const header_size = end + 1 - 8;
  std::memcpy(bytes.data(), &header_size, sizeof header_size);
  mend_content_hash(bytes);
  read_all(bytes);
  return 0;
}
