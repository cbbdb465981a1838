// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/ratio.hpp"

#include <doctest/doctest.h>

#include <limits>

TEST_CASE("token_ratio: the difference of two log-probs") {
  CHECK(lamina::token_ratio{}.log_ratio(-1.0, -1.5) == 0.5);
}

TEST_CASE("on_policy_ratio: 0 whatever stands in the old log-probs") {
  double const nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(lamina::on_policy_ratio{}.log_ratio(-1.0, nan) == 0.0);
  static_assert(!lamina::on_policy_ratio::reads_old_log_probs);
}
