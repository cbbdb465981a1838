// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/io/record.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <limits>

#include "lamina/core/random.hpp"

using fields_type = std::vector<std::string>;

namespace {
fields_type decoded(std::string const& line) {
  fields_type fields;
  REQUIRE(line.back() == '\n');
  REQUIRE(lamina::decode_record(std::string_view(line).substr(0, line.size() - 1), fields));
  return fields;
}
}  // namespace

TEST_CASE("fnv1a_64: the published vectors") {
  // draft-eastlake-fnv, appendix C: "", "a", "foobar".
  static_assert(lamina::fnv1a_64("") == 0xcbf29ce484222325u);
  static_assert(lamina::fnv1a_64("a") == 0xaf63dc4c8601ec8cu);
  static_assert(lamina::fnv1a_64("foobar") == 0x85944171f73967e8u);
  CHECK(lamina::hex_text(lamina::fnv1a_64("foobar")) == "85944171f73967e8");
}

TEST_CASE("a record holds any bytes in its fields and is one line") {
  fields_type const fields{"plain",
                           "",
                           "tab\there",
                           "line\nbreak\r\n",
                           "back\\slash \\t \\n",
                           std::string("nul\0inside", 10),
                           "\xff\xfe"};
  std::string const line = lamina::encode_record(fields);
  CHECK(line.find('\n') == line.size() - 1);
  CHECK(decoded(line) == fields);
  CHECK(decoded(lamina::encode_record({})) == fields_type{});
  CHECK(decoded(lamina::encode_record({""})) == fields_type{""});
}

TEST_CASE("a record with any one byte changed, lost or doubled is refused") {
  std::string const line = lamina::encode_record({"run", "0", "layer:3", "0.8125"});
  std::string const body = line.substr(0, line.size() - 1);
  fields_type fields;
  for (std::size_t i = 0; i < body.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = body;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      CHECK_FALSE(lamina::decode_record(changed, fields));
    }
    std::string lost = body;
    CHECK_FALSE(lamina::decode_record(lost.erase(i, 1), fields));
    std::string doubled = body;
    doubled.insert(i, 1, body[i]);
    CHECK_FALSE(lamina::decode_record(doubled, fields));
  }
  for (std::size_t length = 0; length < body.size(); ++length) {
    CHECK_FALSE(lamina::decode_record(body.substr(0, length), fields));
  }
}

TEST_CASE("exact_text reads back to the same bits, for any double") {
  lamina::counter_generator generator(5);
  int finite = 0;
  for (int i = 0; i < 20000; ++i) {
    std::uint64_t const high = generator();
    double const value = std::bit_cast<double>((high << 32) | generator());
    if (value != value) continue;
    double back = 0;
    REQUIRE(lamina::parse_number(lamina::exact_text(value), back));
    REQUIRE(std::bit_cast<std::uint64_t>(back) == std::bit_cast<std::uint64_t>(value));
    ++finite;
  }
  CHECK(finite > 19000);
}

TEST_CASE("exact_text is short where the number is") {
  CHECK(lamina::exact_text(0.1) == "0.1");
  CHECK(lamina::exact_text(-0.0) == "-0");
  CHECK(lamina::exact_text(1e300) == "1e+300");
  CHECK(lamina::exact_text(std::numeric_limits<double>::infinity()) == "inf");
  double back = 0;
  CHECK(lamina::parse_number("nan", back));
  CHECK(back != back);
}

TEST_CASE("six_digits rounds for a reader") {
  CHECK(lamina::six_digits(1.0 / 3) == "0.333333");
  CHECK(lamina::six_digits(-0.0120000001) == "-0.012");
  CHECK(lamina::six_digits(1234567) == "1.23457e+06");
  CHECK(lamina::six_digits(3) == "3");
}

TEST_CASE("parse_number takes the whole text or nothing") {
  double real = 0;
  std::int64_t whole = 0;
  std::uint64_t seed = 0;
  for (char const* bad : {"", " 1", "1 ", "1,5", "0x10", "1e999"}) {
    CAPTURE(bad);
    CHECK_FALSE(lamina::parse_number(bad, real));
  }
  CHECK_FALSE(lamina::parse_number("9223372036854775808", whole));
  CHECK_FALSE(lamina::parse_number("-1", seed));
  CHECK(lamina::parse_number("18446744073709551615", seed));
  CHECK(seed == 18446744073709551615u);
}
