// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// doctest's implementation and main, compiled once for all test executables.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
