// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Runs a fuzz target over the files of the directories named, for compilers without libFuzzer.
#include <cstdint>
#include <cstdio>
#include <filesystem>

#include "lamina/io/atomic_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);

int main(int argument_count, char** arguments) {
  int input_count = 0;
  for (int i = 1; i < argument_count; ++i) {
    for (auto const& entry : std::filesystem::directory_iterator(arguments[i])) {
      std::string const bytes = lamina::read_file(entry.path().string());
      LLVMFuzzerTestOneInput(reinterpret_cast<std::uint8_t const*>(bytes.data()), bytes.size());
      ++input_count;
    }
  }
  std::printf("%d inputs\n", input_count);
  return input_count > 0 ? 0 : 1;
}
