// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/model/changed_tensors.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <map>

#include "tests/support/named_weights.hpp"

using lamina::bf16;
using lamina::changed_tensors;
using lamina::index_t;
using lamina::weight_snapshot;
using lamina::testing::named_weights;

namespace {

struct piece {
  std::string name;
  index_t offset;
  std::string bytes;
};

template <class T>
std::vector<piece> pieces_of(weight_snapshot<T> const& before, named_weights<T>& model,
                             index_t piece_bytes) {
  std::vector<piece> pieces;
  index_t const sent =
      changed_tensors(before, model.parameters(), piece_bytes,
                      [&](std::string_view name, index_t offset, std::string_view bytes) {
                        pieces.push_back({std::string(name), offset, std::string(bytes)});
                      });
  index_t total = 0;
  for (piece const& p : pieces) total += static_cast<index_t>(p.bytes.size());
  CHECK(sent == total);
  return pieces;
}

}  // namespace

TEST_CASE("a change is sent with its place, a gap of sixteen elements parts two pieces") {
  named_weights<float> model({"a", "b", "c"}, 64);
  weight_snapshot const before(model.parameters());
  CHECK(pieces_of(before, model, 1024).empty());
  model[1][2] = 9;
  model[1][4] = 9;
  model[1][20] = 9;  // 15 unchanged between
  model[1][37] = 9;  // 16 unchanged between
  model[2][0] = -9;
  auto const pieces = pieces_of(before, model, 1024);
  REQUIRE(pieces.size() == 3);
  CHECK(pieces[0].name == "b");
  CHECK(pieces[0].offset == 2 * 4);
  CHECK(pieces[0].bytes.size() == 19 * 4);
  CHECK(pieces[1].offset == 37 * 4);
  CHECK(pieces[1].bytes.size() == 4);
  CHECK(pieces[2].name == "c");
  CHECK(pieces[2].offset == 0);
}

TEST_CASE_TEMPLATE("pieces written over the old weights give the new ones, none too long", T, float,
                   double, bf16) {
  named_weights<T> model({"a", "b", "c"}, 300);
  named_weights<T> engine = model;
  weight_snapshot const before(model.parameters());
  for (std::size_t t = 0; t < 3; ++t) {
    for (std::size_t i = 0; i < 300; ++i) {
      // Everything of the first tensor, every third element of the second, little of the third.
      if (t == 0 || (t == 1 && i % 3 == 0) || i % 97 == 5) model[t][i] = static_cast<T>(-1.f);
    }
  }
  for (index_t piece_bytes : {8, 20, 64, 1000000}) {
    std::map<std::string, std::size_t> const place{{"a", 0}, {"b", 1}, {"c", 2}};
    named_weights<T> copy = engine;
    for (piece const& p : pieces_of(before, model, piece_bytes)) {
      CHECK(static_cast<index_t>(p.bytes.size()) <= piece_bytes);
      char* const weights = reinterpret_cast<char*>(copy[place.at(p.name)].data());
      std::memcpy(weights + p.offset, p.bytes.data(), p.bytes.size());
    }
    CHECK(copy.bytes() == model.bytes());
  }
}

TEST_CASE("a snapshot of the selected tensors alone suffices to push them") {
  named_weights<float> model({"a", "b"}, 100), engine({"a", "b"}, 100);
  auto const selected = std::vector{model.parameters()[1]};
  auto const train = [&] { model[1][7] = 3; };
  auto const engine_write = [&](std::string_view name, index_t offset, std::string_view bytes) {
    CHECK(name == "b");
    std::memcpy(reinterpret_cast<char*>(engine[1].data()) + offset, bytes.data(), bytes.size());
  };
  // [push]
  lamina::weight_snapshot const before(selected);  // copies of what will be trained
  train();
  lamina::changed_tensors(before, selected, 1 << 20,
                          [&](std::string_view name, index_t byte_offset, std::string_view bytes) {
                            engine_write(name, byte_offset, bytes);  // at most 1 MiB
                          });
  // [/push]
  CHECK(engine.bytes() == model.bytes());
}

TEST_CASE("what is sent is counted") {
  named_weights<float> model({"a", "b"});
  auto const selected = std::vector{model.parameters()[1]};
  weight_snapshot const before(selected);
  model[1][3] = 2;
  index_t const sent =
      changed_tensors(before, selected, 64, [](std::string_view name, index_t offset, auto) {
        CHECK(name == "b");
        CHECK(offset == 12);
      });
  CHECK(sent == 4);
}

TEST_CASE("a zero's sign is a change, and a NaN that stays is none") {
  named_weights<float> model({"a"});
  model[0][2] = std::numeric_limits<float>::quiet_NaN();
  weight_snapshot const before(model.parameters());
  CHECK(pieces_of(before, model, 64).empty());
  model[0][0] = -0.f;
  CHECK(pieces_of(before, model, 64).size() == 1);
}

TEST_CASE("a tensor without a snapshot, of another size, or a piece without room is refused") {
  named_weights<float> model({"a"}), other({"b"}), longer({"a"}, 5);
  weight_snapshot const before(model.parameters());
  auto const nothing = [](auto, auto, auto) { FAIL("sent"); };
  CHECK_THROWS_WITH_AS(changed_tensors(before, other.parameters(), 64, nothing),
                       "changed_tensors: the snapshot has no parameter b", lamina::config_error);
  CHECK_THROWS_WITH_AS(changed_tensors(before, longer.parameters(), 64, nothing),
                       "changed_tensors: a has 5 elements, its snapshot has 4",
                       lamina::shape_error);
  CHECK_THROWS_WITH_AS(changed_tensors(before, model.parameters(), 3, nothing),
                       "changed_tensors: piece_bytes is 3, expected at least 4",
                       lamina::config_error);
}
