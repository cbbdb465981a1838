// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a fuzz target demands of every input.
#pragma once

#include <cstdio>
#include <cstdlib>

/// Ends the program with a message that names the line unless `condition` holds.
inline void require(bool condition, char const* file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
  if (condition) return;
  std::fprintf(stderr, "%s:%d: required of every input\n", file, line);
  std::abort();
}
