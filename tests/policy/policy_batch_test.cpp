// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/policy_batch.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace lamina;

TEST_CASE("a token finds its sequence, also around empty sequences") {
  std::vector<index_t> const offsets{0, 0, 3, 3, 4, 9};
  policy_batch<float> const batch{.offsets = offsets};
  std::vector<index_t> const owner{1, 1, 1, 3, 4, 4, 4, 4, 4};
  for (index_t t = 0; t < 9; ++t) CHECK(batch.sequence_of(t) == owner[static_cast<std::size_t>(t)]);
  CHECK(batch.sequence_count() == 5);
  CHECK(batch.token_count() == 9);
}

TEST_CASE("denominators of a whole step count active tokens only") {
  std::vector<index_t> const offsets{0, 3, 5};
  std::vector<std::uint8_t> const mask{1, 0, 1, 0, 0};
  auto const d = denominators_of(policy_batch<double>{.offsets = offsets, .mask = mask});
  CHECK(d.sequences == 2);
  CHECK(d.tokens == 2);
  CHECK(d.scale() == 1.0);
}
