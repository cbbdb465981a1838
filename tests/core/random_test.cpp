// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/core/random.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using lamina::counter_generator;
using lamina::philox4x32;
using lamina::random_words;

namespace {
bool same(random_words a, random_words b) {
  for (int i = 0; i < 4; ++i) {
    if (a.word[i] != b.word[i]) return false;
  }
  return true;
}
}  // namespace

TEST_CASE("philox4x32: the published known-answer vectors") {
  // Random123 kat_vectors, philox4x32 10.
  CHECK(same(philox4x32(0, {{0, 0, 0, 0}}), {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}));
  CHECK(same(philox4x32(0xffffffffffffffffu, {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}),
             {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}));
  CHECK(same(philox4x32(0x299f31d0a4093822u, {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}),
             {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}));
}

TEST_CASE("philox4x32: usable in constant expressions") {
  static_assert(philox4x32(0, {{0, 0, 0, 0}}).word[0] == 0x6627e8d5);
}

TEST_CASE("philox4x32_leading: first words of neighbouring counters, over the end of 32 bits") {
  for (std::uint32_t const last : {0u, 1234567u, 0xfffffffcu}) {
    random_words const counter{{7, 0xffffffff, 0x80000000, last}};
    std::uint32_t words[lamina::philox_lanes];
    lamina::philox4x32_leading(0xfedcba9876543210u, counter, words);
    for (std::uint32_t j = 0; j < lamina::philox_lanes; ++j) {
      random_words at = counter;
      at.word[3] += j;
      CHECK(words[j] == philox4x32(0xfedcba9876543210u, at).word[0]);
    }
  }
}

TEST_CASE("uniform_open: both ends are excluded, also for all-zero and all-one bits") {
  CHECK(lamina::uniform_open(0, 0) > 0.0);
  CHECK(lamina::uniform_open(0xffffffff, 0xffffffff) < 1.0);
  CHECK(std::isfinite(std::log(lamina::uniform_open(0, 0))));
}

TEST_CASE("counter_generator: mean and variance of a uniform, streams differ") {
  counter_generator a(7), b(7, 1);
  double sum = 0, square = 0;
  int equal = 0;
  int const n = 20000;
  for (int i = 0; i < n; ++i) {
    double const x = a.uniform();
    equal += x == b.uniform() ? 1 : 0;
    sum += x;
    square += x * x;
  }
  CHECK(equal == 0);
  CHECK(sum / n == doctest::Approx(0.5).epsilon(0.02));
  CHECK(square / n - (sum / n) * (sum / n) == doctest::Approx(1.0 / 12).epsilon(0.03));
}

TEST_CASE("counter_generator::below: covers [0, bound) evenly") {
  counter_generator g(3);
  std::vector<int> count(7);
  for (int i = 0; i < 70000; ++i) ++count[g.below(7)];
  for (int c : count) CHECK(std::abs(c - 10000) < 500);
  CHECK(g.below(1) == 0);
}
