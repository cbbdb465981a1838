// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/correction.hpp"

#include <doctest/doctest.h>

TEST_CASE("no_correction: weight 1 for any mismatch, and the sampler's log-probs are not read") {
  static_assert(!lamina::no_correction::reads_rollout_log_probs);
  CHECK(lamina::no_correction{}.weight(-3.0) == 1.0);
  CHECK(lamina::no_correction{}.weight(100.0) == 1.0);
}
