// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Any bytes as a safetensors file: refused, or every byte of the data belongs to one tensor.
#include "lamina/io/safetensors.hpp"
#include "tests/fuzz/require.hpp"

namespace {

void read_all(std::string_view bytes) {
  try {
    auto const file = lamina::safetensors_file::from_bytes(bytes, "fuzz");
    std::size_t data_size = 0;
    std::vector<float> values;
    for (lamina::raw_tensor const& tensor : file.tensors()) {
      require(file.find(tensor.name) == &tensor);
      require(tensor.bytes.data() >= bytes.data() &&
              tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size());
      auto const bit_count = static_cast<std::size_t>(lamina::element_count(tensor.shape) *
                                                      lamina::traits_of(tensor.type).bit_count);
      require(bit_count == 8 * tensor.bytes.size());
      data_size += tensor.bytes.size();
      if (lamina::traits_of(tensor.type).bit_count < 16) continue;
      values.resize(static_cast<std::size_t>(lamina::element_count(tensor.shape)));
      try {
        file.read(tensor.name, lamina::vector_view<float>(values));
      } catch (lamina::format_error const&) {  // integers
      }
    }
    std::uint64_t header_size = 0;
    std::memcpy(&header_size, bytes.data(), sizeof header_size);
    require(data_size + header_size + sizeof header_size == bytes.size());
  } catch (lamina::format_error const&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  std::string bytes(reinterpret_cast<char const*>(data), size);
  read_all(bytes);
  // Mutations seldom keep the size of the header right; with it mended the header is looked at.
  std::size_t const end = bytes.rfind('}');
  if (end != std::string::npos && end >= 8) {
    std::uint64_t const header_size = end + 1 - 8;
    std::memcpy(bytes.data(), &header_size, sizeof header_size);
    read_all(bytes);
  }
  return 0;
}
