// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <lamina/lamina.hpp>
#ifdef WITH_JSON
#include <lamina/io/safetensors.hpp>
#endif

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {
char const* expected_kind = "selection_error";
char const* expected_words = "layer 12 is selected";
}  // namespace

// Ends the program with 0 if the error is the expected one.
void host_error(char const* kind, char const* message) {
  bool const expected =
      std::strcmp(kind, expected_kind) == 0 && std::strstr(message, expected_words) != nullptr;
  std::printf("%s: %s\n", kind, message);
  std::exit(expected ? 0 : 1);
}

int main(int argument_count, char**) {
  if (argument_count > 1) {
    expected_kind = "format_error";
    expected_words = "is not JSON at byte 9";
#ifdef WITH_JSON
    lamina::safetensors_file::from_bytes({"\x8\0\0\0\0\0\0\0{\"a\": 1e}", 16}, "memory");
#endif
    return 1;
  }
  lamina::plan_backward(12, lamina::layer_set{}.insert(12));
  return 1;
}
