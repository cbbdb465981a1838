// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/selection_text.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "lamina/core/random.hpp"

using namespace lamina;

namespace {

constexpr double unmeasured = std::numeric_limits<double>::quiet_NaN();
constexpr double profile_of_six[] = {0.2, 0.9, unmeasured, 0.9, -0.1, 0.5};
constexpr vector_view<double const> profile{profile_of_six, 6};

std::string message_of(std::string_view text, index_t layer_count = 28,
                       vector_view<double const> contributions = {}) {
  try {
    parse_layers(text, layer_count, contributions);
  } catch (selection_error const& problem) {
    return problem.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("parse_layers: every form of an item, in constant expressions") {
  static_assert(parse_layers("7", 28) == single_layer(7));
  static_assert(parse_layers("13-22", 28) == layer_range(13, 22));
  static_assert(parse_layers("middle:5", 28) == middle_layers(28, 5));
  static_assert(parse_layers("first:2", 28) == first_layers(28, 2));
  static_assert(parse_layers("last:4", 28) == last_layers(28, 4));
  static_assert(parse_layers("top:2", 6, profile) == top_layers(profile, 2));
  static_assert(parse_layers("worst:2", 6, profile) == worst_layers(profile, 2));
  static_assert(parse_layers("every:4", 28) == every_layer(28, 4));
  static_assert(parse_layers("every:4+1", 28) == every_layer(28, 4, 1));
  static_assert(parse_layers("all", 28) == all_layers(28));
  static_assert(parse_layers("none", 28) == no_layers());
  static_assert(parse_layers("!all", 28) == no_layers());
  static_assert(parse_layers("!none", 28) == all_layers(28));
  static_assert(parse_layers("!first:2", 28) == layer_range(2, 27));
  static_assert(parse_layers("!2-26", 28) == (layer_range(0, 1) | single_layer(27)));
  CHECK(parse_layers("0", 1) == all_layers(1));
}

TEST_CASE("parse_layers: items are united, blanks around them ignored, order is free") {
  layer_set const expected = layer_range(0, 3) | single_layer(7) | layer_range(10, 12);
  for (char const* text : {"0-3,7,10-12", "10-12,7,0-3", "  0-3 ,\t7,\n10-12 ",
                           "0,1,2,3,7,10,11,12", "0-2,1-3,7,7,10-12", "first:4,7,10-12,none"}) {
    CAPTURE(text);
    CHECK(parse_layers(text, 28) == expected);
  }
}

TEST_CASE("to_text: ascending, ranges closed up, none for the empty set") {
  CHECK(to_text(no_layers()) == "none");
  CHECK(to_text(single_layer(0)) == "0");
  CHECK(to_text(parse_layers("12,11,10,7,3,2,1,0", 28)) == "0-3,7,10-12");
  CHECK(to_text(all_layers(512)) == "0-511");
  CHECK(to_text(single_layer(63) | single_layer(64)) == "63-64");
}

TEST_CASE("to_text: parse_layers brings back every set") {
  counter_generator random(5);
  for (int i = 0; i < 500; ++i) {
    layer_set set;
    std::uint32_t const density = 1 + random.below(20);
    for (index_t layer = 0; layer < max_layers; ++layer) {
      if (random.below(20) < density) set.insert(layer);
    }
    REQUIRE(parse_layers(to_text(set), max_layers) == set);
    if (set.empty()) continue;
    REQUIRE(parse_layers(to_text(set), set.highest() + 1) == set);
    REQUIRE(to_text(parse_layers(to_text(set), max_layers)) == to_text(set));
  }
}

TEST_CASE("parse_layers: bad items name the item, the text and what was expected") {
  std::string const forms =
      "expected a layer (7), a range (13-22), first:k, last:k, middle:k, top:k, worst:k, every:n, "
      "every:n+offset, all or none, with ! in front for the complement";
  CHECK(message_of("") ==
        "parse_layers: the text is empty, expected a selection such as \"13-22\", \"middle:3\", "
        "\"all\" or \"none\"");
  CHECK(message_of(" \t ") == message_of(""));
  CHECK(message_of("3,,4") ==
        "parse_layers: \"\" in \"3,,4\": the item is empty, expected a layer or a selector");
  CHECK(message_of("3,") ==
        "parse_layers: \"\" in \"3,\": the item is empty, expected a layer or a selector");
  for (char const* junk :
       {"foo", "-3", "!", "!!3", "+3", "ALL", "middle", ":", "seven:7", "! 3", "\xc3\xa9"}) {
    CAPTURE(junk);
    CHECK(message_of(junk) ==
          "parse_layers: \"" + std::string(junk) + "\" in \"" + junk + "\": " + forms);
  }
  CHECK(message_of("first:2:3") ==
        "parse_layers: \"first:2:3\" in \"first:2:3\": \"2:3\" is not a number of layers");
  CHECK(message_of("0, 5-3") ==
        "parse_layers: \"5-3\" in \"0, 5-3\": the range 5-3 is reversed, expected first <= last");
  CHECK(message_of("28") ==
        "parse_layers: \"28\" in \"28\": layer 28 does not exist, expected 0..27");
  CHECK(message_of("!28") ==
        "parse_layers: \"!28\" in \"!28\": layer 28 does not exist, expected 0..27");
  CHECK(message_of("3-28") ==
        "parse_layers: \"3-28\" in \"3-28\": layer 28 does not exist, expected 0..27");
  CHECK(message_of("3-") == "parse_layers: \"3-\" in \"3-\": expected a layer where nothing is");
  CHECK(message_of("3-5-7") == "parse_layers: \"3-5-7\" in \"3-5-7\": \"5-7\" is not a layer");
  CHECK(message_of("3 4") == "parse_layers: \"3 4\" in \"3 4\": \"3 4\" is not a layer");
  CHECK(message_of("0x3") == "parse_layers: \"0x3\" in \"0x3\": \"0x3\" is not a layer");
  CHECK(message_of("99999999999999999999") ==
        "parse_layers: \"99999999999999999999\" in \"99999999999999999999\": the number "
        "99999999999999999999 is too large for a layer");
  CHECK(message_of("first:99999999999999999999") ==
        "parse_layers: \"first:99999999999999999999\" in \"first:99999999999999999999\": the "
        "number 99999999999999999999 is too large for a number of layers");
  CHECK(message_of("first:0") ==
        "parse_layers: \"first:0\" in \"first:0\": k is 0, expected 1..28, the number of layers");
  CHECK(message_of("1,last:29") ==
        "parse_layers: \"last:29\" in \"1,last:29\": k is 29, expected 1..28, the number of "
        "layers");
  CHECK(message_of("middle:-1") ==
        "parse_layers: \"middle:-1\" in \"middle:-1\": \"-1\" is not a number of layers");
  CHECK(message_of("middle:") ==
        "parse_layers: \"middle:\" in \"middle:\": expected a number of layers where nothing is");
  CHECK(message_of("every:0") ==
        "parse_layers: \"every:0\" in \"every:0\": the step is 0, expected 1..28, the number of "
        "layers");
  CHECK(message_of("every:4+") ==
        "parse_layers: \"every:4+\" in \"every:4+\": expected an offset where nothing is");
  CHECK(message_of("every:4+28") ==
        "parse_layers: \"every:4+28\" in \"every:4+28\": the offset is 28, expected a layer of "
        "0..27");
  CHECK(message_of("top:3") ==
        "parse_layers: \"top:3\" in \"top:3\": needs a contribution profile, and none is given");
  CHECK(message_of("worst:6", 6, profile) ==
        "parse_layers: \"worst:6\" in \"worst:6\": k is 6, but the profile has 5 measured layers "
        "of 6");
}

TEST_CASE("parse_layers: a profile of another model or a bad layer count is refused") {
  CHECK_THROWS_WITH_AS(parse_layers("top:1", 28, profile),
                       "parse_layers: the profile has 6 layers, the model has 28", shape_error);
  CHECK_THROWS_WITH_AS(parse_layers("all", 0), "parse_layers: layer_count is 0, expected 1..512",
                       config_error);
}

TEST_CASE("parse_layers: random junk never gives anything but a set or a selection_error") {
  counter_generator random(6);
  char const alphabet[] = "0123456789,-:+! \tallnonefirstmiddletopevery\0";
  int parsed = 0, refused = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string text;
    std::uint32_t const length = random.below(12);
    for (std::uint32_t c = 0; c < length; ++c) text += alphabet[random.below(sizeof alphabet)];
    try {
      layer_set const set = parse_layers(text, 9);
      REQUIRE(set.highest() < 9);
      REQUIRE(parse_layers(to_text(set), 9) == set);
      ++parsed;
    } catch (selection_error const&) {
      ++refused;
    }
  }
  CHECK(parsed > 0);
  CHECK(refused > 0);
}
