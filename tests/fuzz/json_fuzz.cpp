// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// parse_json against nlohmann's own parser: it accepts nothing else and reads nothing differently.
#include "lamina/io/json.hpp"
#include "tests/fuzz/require.hpp"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  std::string_view const text(reinterpret_cast<char const*>(data), size);
  auto const expected = nlohmann::json::parse(text, nullptr, false);
  try {
    require(lamina::parse_json(text, "fuzz") == expected);
  } catch (lamina::format_error const& error) {
    std::string_view const words = error.what();
    require(expected.is_discarded() || words.ends_with("\" twice") || words.ends_with("levels"));
  }
  return 0;
}
