// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// GGUF files: every kind of value and of block is read as ggml defines it, and whatever a file lies
// about is named.
#include <doctest/doctest.h>

#include <limits>

#include "tests/examples/gguf_builder.hpp"

using namespace decoder;
using namespace decoder::testing;

namespace {

std::string message_of(std::string_view bytes) {
  try {
    gguf const file(bytes, "FILE");
  } catch (lamina::format_error const& error) {
    return error.what();
  }
  return "";
}
std::string message_of(gguf_builder const& file) { return message_of(file.file()); }

template <class Read>
std::string message_of_reading(Read const& read) {
  try {
    read();
  } catch (lamina::format_error const& error) {
    return error.what();
  }
  return "";
}

std::string half(float value) { return bytes_of(lamina::f16(value).bits); }

std::vector<double> decoded(stored_type type, std::string const& bytes) {
  stored_format const format = format_of(type);
  std::vector<double> values(bytes.size() / static_cast<std::size_t>(format.block_bytes) *
                             static_cast<std::size_t>(format.block_size));
  decode_stored(type, bytes.data(), vector_view<double>(values));
  return values;
}

std::string replaced(std::string text, std::string const& from, std::string const& to) {
  std::size_t const at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("gguf: blocks are a scale and integers, with a minimum in Q4_1") {
  // Byte i holds the nibbles i and 15 - i: elements 0..15 are 0..15, elements 16..31 are 15..0.
  std::string nibbles;
  for (int i = 0; i < 16; ++i) nibbles += static_cast<char>(i | (15 - i) << 4);
  auto const q4_0 = decoded(stored_type::q4_0, half(0.5f) + nibbles);
  auto const q4_1 = decoded(stored_type::q4_1, half(0.5f) + half(-3) + nibbles);
  for (int i = 0; i < 16; ++i) {
    auto const low = static_cast<std::size_t>(i);
    CHECK(q4_0[low] == 0.5 * (i - 8));
    CHECK(q4_0[low + 16] == 0.5 * (7 - i));
    CHECK(q4_1[low] == 0.5 * i - 3);
    CHECK(q4_1[low + 16] == 0.5 * (15 - i) - 3);
  }
  std::string bytes;
  for (int i = 0; i < 32; ++i) bytes += static_cast<char>(8 * i - 128);
  auto const q8_0 = decoded(stored_type::q8_0, half(2) + bytes + half(-1) + bytes);
  REQUIRE(q8_0.size() == 64);
  for (int i = 0; i < 32; ++i) {
    CHECK(q8_0[static_cast<std::size_t>(i)] == 2 * (8 * i - 128));
    CHECK(q8_0[static_cast<std::size_t>(i + 32)] == -(8 * i - 128));
  }
  CHECK(decoded(stored_type::f32, bytes_of(0.1f)) == std::vector<double>{0.1f});
  CHECK(decoded(stored_type::f16, half(-0.375f)) == std::vector<double>{-0.375});
  CHECK(decoded(stored_type::bf16, bytes_of(lamina::bf16(3.0f).bits)) == std::vector<double>{3});
}

TEST_CASE("gguf: values of every type are read by key, and asked for by the wrong type named") {
  gguf_builder file;
  auto const array = [](gguf_type type, std::uint64_t count, std::string const& elements) {
    return bytes_of(type) + bytes_of(count) + elements;
  };
  file.key("u8", gguf_type::uint8, bytes_of(std::uint8_t{200}))
      .key("i8", gguf_type::int8, bytes_of(std::int8_t{-100}))
      .key("u16", gguf_type::uint16, bytes_of(std::uint16_t{60000}))
      .key("i16", gguf_type::int16, bytes_of(std::int16_t{-30000}))
      .key("u32", gguf_type::uint32, bytes_of(std::uint32_t{4000000000}))
      .key("i32", gguf_type::int32, bytes_of(std::int32_t{-2000000000}))
      .key("u64", gguf_type::uint64, bytes_of(std::uint64_t{1} << 62))
      .key("i64", gguf_type::int64, bytes_of(std::numeric_limits<std::int64_t>::min()))
      .key("huge", gguf_type::uint64, bytes_of(std::uint64_t{1} << 63))
      .key("yes", gguf_type::boolean, bytes_of(true))
      .number("f32", 0.5f)
      .key("f64", gguf_type::float64, bytes_of(1e-300))
      .text("text", "words")
      .key("texts", gguf_type::array,
           array(gguf_type::string, 3, gguf_string("a") + gguf_string("") + gguf_string("ccc")))
      .key("numbers", gguf_type::array,
           array(gguf_type::int16, 2, bytes_of(std::int16_t{-1}) + bytes_of(std::int16_t{7})))
      .key("nested", gguf_type::array,
           array(gguf_type::array, 2,
                 array(gguf_type::uint8, 1, "x") + array(gguf_type::string, 1, gguf_string("y"))));
  std::string const bytes = file.file();
  gguf const read(bytes, "FILE");
  CHECK(read.integer("u8") == 200);
  CHECK(read.integer("i8") == -100);
  CHECK(read.integer("u16") == 60000);
  CHECK(read.integer("i16") == -30000);
  CHECK(read.integer("u32") == 4000000000);
  CHECK(read.integer("i32") == -2000000000);
  CHECK(read.integer("u64") == index_t{1} << 62);
  CHECK(read.integer("i64") == std::numeric_limits<index_t>::min());
  CHECK(read.flag("yes"));
  CHECK(read.number("f32") == 0.5);
  CHECK(read.number("f64") == 1e-300);
  CHECK(read.text("text") == "words");
  CHECK(read.texts("texts") == std::vector<std::string_view>{"a", "", "ccc"});
  CHECK(read.integers("numbers") == std::vector<index_t>{-1, 7});
  CHECK(read.has("nested"));
  CHECK(read.keys().size() == 16);

  CHECK(message_of_reading([&] { read.integer("huge"); }) ==
        "decoder::gguf: 'FILE' has 'huge' = 9223372036854775808, expected less than 2^63");
  CHECK(message_of_reading([&] { read.integer("absent"); }) ==
        "decoder::gguf: 'FILE' has no 'absent', expected an integer");
  CHECK(message_of_reading([&] { read.text("u8"); }) ==
        "decoder::gguf: 'FILE' has 'u8' of type uint8, expected a string");
  CHECK(message_of_reading([&] { read.integers("texts"); }) ==
        "decoder::gguf: 'FILE' has 'texts' with elements of type string, expected an array of "
        "integers");
}

TEST_CASE("gguf: a file cut anywhere is refused") {
  std::string const bytes = tiny_llama().file();
  REQUIRE(message_of(bytes) == "");
  std::size_t const last = bytes.size() - 32 + 8;  // the last tensor's bytes; padding may be cut
  for (std::size_t size = 0; size < last; ++size) {
    CAPTURE(size);
    CHECK(message_of(std::string_view(bytes).substr(0, size)).starts_with("decoder::gguf: 'FILE'"));
  }
  CHECK(message_of(std::string_view(bytes).substr(0, last)) == "");
  CHECK(message_of(std::string_view(bytes).substr(0, 20)) ==
        "decoder::gguf: 'FILE' at byte 16: the key count needs 8 bytes, 4 are left: the file is "
        "truncated or lies");
}

TEST_CASE("gguf: what begins otherwise is refused") {
  CHECK(message_of("") == "decoder::gguf: 'FILE' at byte 0: it does not begin with 'GGUF'");
  CHECK(message_of("GGML0000") == "decoder::gguf: 'FILE' at byte 0: it does not begin with 'GGUF'");
  gguf_builder file;
  file.version = 1;
  CHECK(message_of(file) == "decoder::gguf: 'FILE' at byte 4: version 1, expected 2 or 3");
  file.version = 0x03000000;
  CHECK(message_of(file) ==
        "decoder::gguf: 'FILE' at byte 4: version 50331648 (a big-endian file), expected 2 or 3");
}

TEST_CASE("gguf: counts and lengths that lie are refused before they are used") {
  std::string const most = bytes_of(~std::uint64_t{0});
  std::string const head = "GGUF" + bytes_of(std::uint32_t{3});
  CHECK(message_of(head + most + bytes_of(std::uint64_t{0}))
            .starts_with("decoder::gguf: 'FILE' at byte 24: a tensor's name needs 8 bytes"));
  CHECK(message_of(head + bytes_of(std::uint64_t{0}) + most)
            .starts_with("decoder::gguf: 'FILE' at byte 24: a key needs 8 bytes"));
  gguf_builder file;
  file.key("k", gguf_type::string, most);
  CHECK(
      message_of(file) ==
      "decoder::gguf: 'FILE' at byte 45: k needs 18446744073709551615 bytes, 0 are left: the file "
      "is truncated or lies");
  auto const array = [](gguf_type type, std::uint64_t count) {
    gguf_builder lying;
    lying.key("k", gguf_type::array, bytes_of(type) + bytes_of(count) + "abcdefgh");
    return message_of(lying);
  };
  CHECK(
      array(gguf_type::uint64, std::uint64_t{1} << 61) ==
      "decoder::gguf: 'FILE' at byte 41: 'k' has 2305843009213693952 elements of 8 bytes, 8 bytes "
      "are left: the file is truncated or lies");
  CHECK(array(gguf_type::string, std::uint64_t{1} << 61) != "");
  CHECK(array(gguf_type::uint8, 8) == "");
  CHECK(array(static_cast<gguf_type>(13), 1) ==
        "decoder::gguf: 'FILE' at byte 37: value type 13 of 'k', expected 0..12");

  std::string nested = bytes_of(gguf_type::uint8) + bytes_of(std::uint64_t{0});
  for (int depth = 0; depth < 4; ++depth) {
    nested = bytes_of(gguf_type::array) + bytes_of(std::uint64_t{1}) + nested;
    gguf_builder deep;
    deep.key("k", gguf_type::array, nested);
    CAPTURE(depth);
    CHECK((message_of(deep) == "") == (depth < 3));
  }
}

TEST_CASE("gguf: keys and tensors that come twice are refused") {
  gguf_builder file;
  file.integer("k", 1).integer("k", 1);
  CHECK(message_of(file).ends_with(": 'k' comes a second time"));
  gguf_builder twice;
  twice.tensor("t", {1}, 0, bytes_of(1.0f)).tensor("t", {1}, 0, bytes_of(1.0f));
  CHECK(message_of(twice) == "decoder::gguf: 'FILE': tensors 't' and 't' have the same name");
}

TEST_CASE("gguf: tensors of other types and impossible shapes are refused") {
  auto const tensor = [](std::vector<std::uint64_t> const& dimensions, std::uint32_t type) {
    gguf_builder file;
    file.tensor_at("t", dimensions, type, 0);
    return message_of(file);
  };
  CHECK(tensor({256}, 14) ==
        "decoder::gguf: 'FILE' at byte 45: tensor 't' has type 14 (Q6_K), expected F32, F16, BF16, "
        "Q8_0, Q4_0 or Q4_1");
  CHECK(tensor({256}, 4711).find("type 4711 (unknown to ggml)") != std::string::npos);
  CHECK(tensor({48}, 8) ==
        "decoder::gguf: 'FILE' at byte 45: tensor 't' has rows of 48 elements, expected a multiple "
        "of 32, the block of Q8_0");
  CHECK(tensor({}, 0) ==
        "decoder::gguf: 'FILE' at byte 33: tensor 't' has 0 dimensions, expected 1..4");
  CHECK(tensor({1, 1, 1, 1, 1}, 0).find("has 5 dimensions") != std::string::npos);
  CHECK(tensor({4, 0}, 0).find("has dimension 1 of 0, expected at least 1") != std::string::npos);
  std::uint64_t const large = std::uint64_t{1} << 32;
  CHECK(tensor({large, large, large}, 0).find("has dimension 1 of 4294967296") !=
        std::string::npos);
}

TEST_CASE("gguf: tensors outside the data, off the alignment or over each other are refused") {
  auto const at = [](std::uint64_t offset) {
    gguf_builder file;
    file.tensor("first", {8}, 0, std::string(32, '\0')).tensor_at("t", {8}, 0, offset);
    file.data.append(32, '\0');
    return message_of(file);
  };
  CHECK(at(32) == "");
  CHECK(at(0) == "decoder::gguf: 'FILE': tensors 'first' and 't' overlap");
  CHECK(at(36) ==
        "decoder::gguf: 'FILE': tensor 't' lies at offset 36, expected a multiple of the alignment "
        "32");
  std::string const lies = " with 32 bytes, the data have 64: the file is truncated or lies";
  CHECK(at(64) == "decoder::gguf: 'FILE': tensor 't' lies at offset 64" + lies);
  CHECK(at(~std::uint64_t{31}) ==
        "decoder::gguf: 'FILE': tensor 't' lies at offset 18446744073709551584" + lies);

  gguf_builder apart;
  apart.alignment = 8;
  apart.integer("general.alignment", 8)
      .tensor("a", {1}, 0, bytes_of(1.0f))
      .tensor("b", {3}, 1, half(1) + half(2) + half(3));
  std::string const bytes = apart.file();
  gguf const file(bytes, "FILE");
  REQUIRE(file.find_tensor("b") != nullptr);
  CHECK(file.find_tensor("b")->bytes == half(1) + half(2) + half(3));
  CHECK(file.find_tensor("c") == nullptr);
  CHECK(message_of(replaced(bytes, "alignment" + bytes_of(gguf_type::uint32) + bytes_of(8),
                            "alignment" + bytes_of(gguf_type::uint32) + bytes_of(12))) ==
        "decoder::gguf: 'FILE': general.alignment is 12, expected a power of two up to 2^20");
}
