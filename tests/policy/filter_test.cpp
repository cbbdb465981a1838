// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/filter.hpp"

#include <doctest/doctest.h>

TEST_CASE("no_filter: keeps every token") {
  CHECK(lamina::no_filter{}.keeps(0.0, 0.0));
  CHECK(lamina::no_filter{}.keeps(50.0, -1.0));
}
