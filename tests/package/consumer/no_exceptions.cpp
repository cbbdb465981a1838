// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <lamina/lamina.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>

// Ends the program with 0 if the error is the expected one.
void host_error(char const* kind, char const* message) {
  bool const expected = std::strcmp(kind, "selection_error") == 0 &&
                        std::strstr(message, "layer 12 is selected") != nullptr;
  std::printf("%s: %s\n", kind, message);
  std::exit(expected ? 0 : 1);
}

int main() {
  lamina::plan_backward(12, lamina::layer_set{}.insert(12));
  return 1;
}
