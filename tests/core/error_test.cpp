// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/error.hpp"

#include <doctest/doctest.h>

TEST_CASE("messages join text and numbers, whole and short") {
  CHECK_THROWS_WITH_AS(lamina::throw_shape_error("f: rows is ", 3, ", expected ", std::int64_t{4}),
                       "f: rows is 3, expected 4", lamina::shape_error);
  CHECK_THROWS_WITH_AS(lamina::throw_config_error("clip_low is ", 0.2), "clip_low is 0.2",
                       lamina::config_error);
  CHECK_THROWS_WITH_AS(lamina::throw_selection_error(std::string("a"), 'b' == 'b'), "a1",
                       lamina::selection_error);
}

TEST_CASE("every error is a lamina::error and a std::runtime_error") {
  CHECK_THROWS_AS(lamina::throw_format_error("x"), lamina::error);
  CHECK_THROWS_AS(lamina::throw_io_error("x"), std::runtime_error);
  CHECK_THROWS_AS(lamina::throw_measurement_error("x"), lamina::measurement_error);
}
