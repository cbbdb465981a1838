// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/layer_set.hpp"

#include <doctest/doctest.h>

#include <set>

#include "lamina/core/random.hpp"

using namespace lamina;

namespace {

layer_set random_set(counter_generator& random) {
  layer_set set;
  std::uint32_t const count = random.below(60);
  for (std::uint32_t i = 0; i < count; ++i) {
    set.insert(static_cast<index_t>(random.below(static_cast<std::uint32_t>(max_layers))));
  }
  return set;
}

layer_set universe() {
  layer_set all;
  for (index_t layer = 0; layer < max_layers; ++layer) all.insert(layer);
  return all;
}

constexpr layer_set of(std::initializer_list<index_t> layers) {
  layer_set set;
  for (index_t const layer : layers) set.insert(layer);
  return set;
}

}  // namespace

TEST_CASE("layer_set: all of it works in constant expressions") {
  constexpr layer_set a = of({0, 3, 63, 64, 511});
  constexpr layer_set b = of({3, 64, 100});
  static_assert(a.size() == 5 && a.lowest() == 0 && a.highest() == 511);
  static_assert(a.contains(64) && !a.contains(65) && !a.contains(-1) && !a.contains(max_layers));
  static_assert(a.next(4) == 63 && a.next(64) == 64 && a.next(65) == 511 && a.next(512) == -1);
  static_assert((a & b) == of({3, 64}));
  static_assert((a | b) == of({0, 3, 63, 64, 100, 511}));
  static_assert((a - b) == of({0, 63, 511}));
  static_assert((a ^ b) == of({0, 63, 100, 511}));
  static_assert(layer_set{}.empty() && layer_set{}.lowest() == -1 && layer_set{}.highest() == -1);
  static_assert([] {
    index_t sum = 0;
    for (index_t const layer : of({5, 70, 400})) sum += layer;
    return sum;
  }() == 475);
  CHECK(a.size() == 5);
}

TEST_CASE("layer_set: insert, erase, contains, size and iteration agree with std::set") {
  counter_generator random(1);
  layer_set set;
  std::set<index_t> model;
  for (int i = 0; i < 2000; ++i) {
    index_t const layer =
        static_cast<index_t>(random.below(static_cast<std::uint32_t>(max_layers)));
    if (random.below(2) == 0) {
      set.insert(layer);
      model.insert(layer);
    } else {
      set.erase(layer);
      model.erase(layer);
    }
    REQUIRE(set.size() == static_cast<index_t>(model.size()));
    REQUIRE(set.contains(layer) == (model.count(layer) == 1));
  }
  auto expected = model.begin();
  for (index_t const layer : set) {
    REQUIRE(expected != model.end());
    CHECK(layer == *expected++);
  }
  CHECK(expected == model.end());
  CHECK(set.lowest() == *model.begin());
  CHECK(set.highest() == *model.rbegin());
}

TEST_CASE("layer_set: random sets obey the laws of set algebra") {
  counter_generator random(2);
  layer_set const all = universe();
  for (int i = 0; i < 200; ++i) {
    layer_set const a = random_set(random), b = random_set(random), c = random_set(random);
    CHECK((a | b) == (b | a));
    CHECK((a & b) == (b & a));
    CHECK(((a | b) | c) == (a | (b | c)));
    CHECK((a & (b | c)) == ((a & b) | (a & c)));
    CHECK((a | (b & c)) == ((a | b) & (a | c)));
    CHECK((all - (a | b)) == ((all - a) & (all - b)));
    CHECK((all - (a & b)) == ((all - a) | (all - b)));
    CHECK((a - b) == (a & (all - b)));
    CHECK((a ^ b) == ((a | b) - (a & b)));
    CHECK(((a ^ b) ^ b) == a);
    CHECK((a | a) == a);
    CHECK((a & (a | b)) == a);
    CHECK((a | b).size() + (a & b).size() == a.size() + b.size());
  }
}

TEST_CASE("layer_set: layers that no model has are refused") {
  layer_set set = of({7});
  CHECK_THROWS_WITH_AS(set.insert(512), "layer_set: layer 512 is outside 0..511", selection_error);
  CHECK_THROWS_WITH_AS(set.insert(-1), "layer_set: layer -1 is outside 0..511", selection_error);
  CHECK_THROWS_WITH_AS(set.erase(512), "layer_set: layer 512 is outside 0..511", selection_error);
  CHECK(set == of({7}));
}
