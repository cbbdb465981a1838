// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Any bytes as a GGUF file: refused, or all values and tensors lie in it and can be read; and if it
// says it is a model, a model or refused.
#include "examples/decoder/pretrained.hpp"
#include "lamina/backend/eigen.hpp"
#include "tests/fuzz/require.hpp"

namespace {

template <class Read>
void refused_or_read(Read const& read) {
  try {
    read();
  } catch (lamina::format_error const&) {
  }
}

void read_values(decoder::gguf const& file) {
  for (std::string_view const key : file.keys()) {
    refused_or_read([&] { file.text(key); });
    refused_or_read([&] { file.flag(key); });
    refused_or_read([&] { file.integer(key); });
    refused_or_read([&] { file.number(key); });
    refused_or_read([&] { file.texts(key); });
    refused_or_read([&] { file.integers(key); });
  }
}

void read_tensors(decoder::gguf const& file, std::string_view bytes) {
  std::vector<bool> used(bytes.size());
  std::vector<float> values;
  for (decoder::stored_tensor const& tensor : file.tensors()) {
    auto const begin = static_cast<std::size_t>(tensor.bytes.data() - bytes.data());
    require(begin <= bytes.size() && tensor.bytes.size() <= bytes.size() - begin);
    auto const count = lamina::element_count(tensor.shape);
    require(decoder::stored_bytes(tensor.type, count) ==
            static_cast<lamina::index_t>(tensor.bytes.size()));
    for (std::size_t i = begin; i < begin + tensor.bytes.size(); ++i) {
      require(!used[i]);
      used[i] = true;
    }
    values.resize(static_cast<std::size_t>(count));
    decoder::decode_stored(tensor.type, tensor.bytes.data(), lamina::vector_view<float>(values));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  std::string_view const bytes(reinterpret_cast<char const*>(data), size);
  refused_or_read([&] {
    decoder::gguf const file(bytes, "fuzz");
    read_values(file);
    read_tensors(file, bytes);
    auto const source = decoder::pretrained::from_gguf(bytes, "fuzz");
    auto const model = decoder::load_pretrained(lamina::eigen_backend<float>{}, source);
    require(source.identity().size() > 4);
  });
  return 0;
}
