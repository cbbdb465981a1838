// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Any text as a config.json: refused, or a shape that passes its own check.
#include "examples/decoder/hf_config.hpp"
#include "tests/fuzz/require.hpp"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  std::string_view const text(reinterpret_cast<char const*>(data), size);
  try {
    decoder::config const shape = decoder::parse_hf_config(text, "fuzz");
    decoder::check(shape);
    require(shape.head_count % shape.kv_head_count == 0 && shape.head_width % 2 == 0);
  } catch (lamina::format_error const&) {
  }
  return 0;
}
