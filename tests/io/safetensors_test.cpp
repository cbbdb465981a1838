// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/io/safetensors.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>

#include <csignal>
#include <filesystem>
#include <limits>

#include "tests/support/file_size_limit.hpp"
#include "tests/support/reference_file.hpp"
#include "tests/support/temporary_directory.hpp"

using lamina::dtype;
using lamina::index_t;
using lamina::raw_tensor;
using lamina::safetensors_file;
using lamina::safetensors_metadata;
using lamina::safetensors_writer;
using lamina::vector_view;
using lamina::testing::file_size_limit;
using lamina::testing::temporary_directory;

namespace {

std::string const reference = std::string(LAMINA_TEST_REFERENCE_DIR) + "/safetensors/";

// A file with this header and so many bytes of data.
std::string file_of(std::string const& header, std::size_t data_size) {
  std::uint64_t const size = header.size();
  return std::string(reinterpret_cast<char const*>(&size), sizeof size) + header +
         std::string(data_size, '\1');
}

std::string error_of(std::string const& bytes) {
  try {
    safetensors_file::from_bytes(bytes, "m");
  } catch (lamina::format_error const& error) {
    return error.what();
  }
  return "";
}

std::string error_of(std::string const& header, std::size_t data_size) {
  return error_of(file_of(header, data_size));
}

// A tensor's entry in a header.
std::string entry(std::string const& name, std::string const& dtype, std::string const& shape,
                  std::string const& begin, std::string const& end) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":[" + begin + "," + end + "]}";
}

double value_of(nlohmann::json const& number) {
  double const infinity = std::numeric_limits<double>::infinity();
  return number == "inf" ? infinity : number == "-inf" ? -infinity : number.get<double>();
}

void check_against(nlohmann::json const& expected, safetensors_file const& file) {
  CHECK(nlohmann::json(file.metadata()) == expected.at("metadata"));
  CHECK(file.tensors().size() == expected.at("tensors").size());
  std::map<std::string, std::string> const names{{"float64", "F64"}, {"float32", "F32"},
                                                 {"float16", "F16"}, {"bfloat16", "BF16"},
                                                 {"int64", "I64"},   {"bool", "BOOL"}};
  for (auto const& [name, tensor] : expected.at("tensors").items()) {
    CAPTURE(name);
    raw_tensor const& found = file.at(name);
    CHECK(lamina::traits_of(found.type).name == names.at(tensor.at("dtype")));
    CHECK(nlohmann::json(found.shape) == tensor.at("shape"));
    std::vector<double> values(tensor.at("values").size());
    if (tensor.at("dtype") == "int64" || tensor.at("dtype") == "bool") {
      CHECK_THROWS_AS(file.read(name, vector_view<double>(values)), lamina::format_error);
      continue;
    }
    file.read(name, vector_view<double>(values));
    for (std::size_t i = 0; i < values.size(); ++i) {
      CHECK(values[i] == value_of(tensor.at("values")[i]));
    }
  }
}

}  // namespace

TEST_CASE("a file of the Python package is read to the values torch reads from it") {
  auto const expected = lamina::testing::read_reference("safetensors/expected.json");
  check_against(expected.at("types"), safetensors_file(reference + "types.safetensors"));
  std::string const bytes = lamina::read_file(reference + "types.safetensors");
  check_against(expected.at("types"), safetensors_file::from_bytes(bytes, "memory"));
}

TEST_CASE("a sharded model is read through its directory or its index") {
  auto const expected = lamina::testing::read_reference("safetensors/expected.json");
  check_against(expected.at("sharded"), safetensors_file(reference + "sharded"));
  safetensors_file file(reference + "sharded/model.safetensors.index.json");
  safetensors_file const moved = std::move(file);
  check_against(expected.at("sharded"), moved);
}

TEST_CASE("a model's file is read and written as the documentation shows") {
  temporary_directory const directory;
  std::string const path = reference + "sharded", copy = directory / "copy.safetensors";
  std::size_t total = 0;
  std::vector<float> norm(8), again(8);
  // [files]
  lamina::safetensors_file const file(path);  // or a directory, or model.safetensors.index.json
  for (lamina::raw_tensor const& tensor : file.tensors()) total += tensor.bytes.size();
  file.read("model.norm.weight", lamina::vector_view<float>(norm));  // BF16 in the file

  lamina::write_safetensors(copy, file.tensors(), {{"format", "pt"}});
  // [/files]
  CHECK(total == 3 * 8 * 2);
  safetensors_file(copy).read("model.norm.weight", vector_view<float>(again));
  CHECK(norm == again);
}

TEST_CASE("a tensor that is not there or has another size is an error that names it") {
  safetensors_file const file(reference + "sharded");
  std::vector<float> values(9);
  CHECK_THROWS_WITH_AS(
      file.read("lm_head.weight", vector_view<float>(values)),
      ("safetensors: '" + file.source() + "' has no tensor lm_head.weight among its 3").c_str(),
      lamina::format_error);
  CHECK_THROWS_WITH_AS(file.read("model.norm.weight", vector_view<float>(values)),
                       doctest::Contains("has 8 elements, the destination has 9"),
                       lamina::shape_error);
}

TEST_CASE("an empty model, blanks after the header and tensors without elements are in order") {
  CHECK(safetensors_file::from_bytes(file_of("{}", 0), "m").tensors().empty());
  CHECK(error_of("{}    ", 0).empty());
  CHECK(error_of("{" + entry("a", "F32", "[0]", "0", "0") + "}", 0).empty());
  CHECK(error_of("{" + entry("b", "F32", "[2,0]", "4", "4") + "," +
                     entry("a", "F32", "[]", "0", "4") + "}",
                 4)
            .empty());
  CHECK(error_of("{" + entry("a", "F4", "[2,3]", "0", "3") + "}", 3).empty());
}

TEST_CASE("a size of the header that is missing, too large or lies is refused") {
  CHECK(error_of("") ==
        "safetensors: 'm' has 0 bytes, expected at least 8 for the size of the header at byte 0");
  CHECK(error_of("{}     ").find("has 7 bytes") != std::string::npos);
  std::string bytes = file_of("{}", 0);
  bytes[0] = 3;
  CHECK(error_of(bytes) ==
        "safetensors: 'm': the size of the header at byte 0 is 3, expected at most 2, what is left "
        "of the file");
  bytes = std::string(8, '\xff') + "{}";
  CHECK(error_of(bytes).find("is 18446744073709551615, expected at most 2") != std::string::npos);
  bytes = file_of("{}" + std::string(100'000'001, ' '), 0);
  CHECK(error_of(bytes).find("is 100000003, expected at most 100000000, the limit") !=
        std::string::npos);
}

TEST_CASE("a header that is not an object of tensors is refused") {
  CHECK(error_of("", 0) == "safetensors: 'm': the header at byte 8 does not begin with {");
  CHECK(error_of(" {}", 0) == "safetensors: 'm': the header at byte 8 does not begin with {");
  CHECK(error_of("{", 0).starts_with("parse_json: 'm' is not JSON at byte "));
  CHECK(error_of("{}{}", 0).starts_with("parse_json: 'm' is not JSON at byte "));
  CHECK(error_of(
            "{" + entry("a", "F32", "[]", "0", "4") + "," + entry("a", "F32", "[]", "4", "8") + "}",
            8) == "parse_json: 'm' has the name \"a\" twice");
  CHECK(error_of("{\"a\":1}", 0) == "'m': $.a is 1, expected an object");
  CHECK(error_of("{\"a\":{}}", 0) == "'m': $.a has no member \"dtype\"");
  CHECK(error_of("{\"a\":{\"dtype\":\"F32\",\"stride\":1}}", 0) ==
        "'m': $.a has the field \"stride\", expected dtype, shape and data_offsets");
  CHECK(error_of("{\"__metadata__\":[]}", 0) ==
        "'m': $.__metadata__ is an array of 0, expected an object");
  CHECK(error_of("{\"__metadata__\":{\"a\":1}}", 0) ==
        "'m': $.__metadata__.a is 1, expected a text");
}

TEST_CASE("a tensor whose type, shape and bytes do not agree is refused") {
  auto const error = [](auto const& dtype, auto const& shape, auto const& begin, auto const& end) {
    return error_of("{" + entry("a", dtype, shape, begin, end) + "}", 8);
  };
  CHECK(error("F32", "[2]", "0", "8") == "");
  CHECK(error("f32", "[2]", "0", "8") ==
        "'m': $.a.dtype is \"f32\", expected a type of the format such as F32, F16 or BF16");
  CHECK(error("F32", "[3]", "0", "8") ==
        "'m': $.a.data_offsets spans 8 bytes, expected 12 by its shape and type");
  CHECK(error("F32", "[-2]", "0", "8").find("$.a.shape[0] is -2, expected an integer in [0") !=
        std::string::npos);
  CHECK(error("F32", "[2.0]", "0", "8").find("$.a.shape[0] is 2.0") != std::string::npos);
  CHECK(error("F32", "2", "0", "8") == "'m': $.a.shape is 2, expected an array");
  CHECK(error("F32", "[4611686018427387906]", "0", "8").find("a size that its shape can have") !=
        std::string::npos);
  CHECK(error("F32", "[4294967296,4294967296,4294967296]", "0", "8") != "");
  CHECK(error("F4", "[3]", "0", "1").find("a size that its shape can have") != std::string::npos);
  CHECK(error("F32", "[2]", "8", "0") ==
        "'m': $.a.data_offsets[1] is 0, expected an integer in [8, 8]");
  CHECK(error("F32", "[2]", "0", "9") ==
        "'m': $.a.data_offsets[1] is 9, expected an integer in [0, 8]");
  CHECK(error("F32", "[2]", "0", "1e999") != "");
  CHECK(error("F32", "[2]", "0", "8,9") == "'m': $.a.data_offsets has 3 elements, expected 2");
}

TEST_CASE("tensors that overlap, leave a hole or do not end with the file are refused") {
  auto const two = [](auto const& begin, auto const& end, std::size_t size) {
    return error_of(
        "{" + entry("a", "F32", "[]", "0", "4") + "," + entry("b", "F32", "[]", begin, end) + "}",
        size);
  };
  CHECK(two("4", "8", 8) == "");
  CHECK(two("5", "9", 9) ==
        "safetensors: 'm': b begins at byte 5 of the data, expected 4: tensors leave a hole");
  CHECK(two("3", "7", 8) ==
        "safetensors: 'm': b begins at byte 3 of the data, expected 4: tensors overlap");
  CHECK(two("0", "4", 4).find("expected 4: tensors overlap") != std::string::npos);
  CHECK(two("4", "8", 9) == "safetensors: 'm' has 9 bytes of data, expected 8 by its header");
  CHECK(error_of("{" + entry("a", "F32", "[]", "1", "5") + "}", 5).find("leave a hole") !=
        std::string::npos);
}

TEST_CASE("every truncation of a file is refused") {
  std::string const bytes = lamina::read_file(reference + "types.safetensors");
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    CHECK_FALSE(error_of(bytes.substr(0, size)).empty());
  }
  CHECK_FALSE(error_of(bytes + "x").empty());
}

TEST_CASE("an index that does not fit its shards is an error that names both") {
  temporary_directory const directory;
  std::string const index = directory / "model.safetensors.index.json";
  auto const error_of_index = [&](std::string const& text) -> std::string {
    lamina::write_file_atomically(index, text);
    try {
      safetensors_file file(directory.path());
    } catch (lamina::error const& error) {
      return error.what();
    }
    return "";
  };
  std::string const header =
      "{" + entry("a", "F32", "[]", "0", "4") + "," + entry("b", "F32", "[]", "4", "8") + "}";
  lamina::write_file_atomically(directory / "one", file_of(header, 8));
  CHECK(error_of_index(R"({"weight_map": {"a": "one", "b": "one"}})") == "");
  CHECK(error_of_index(R"({"weight_map": {"a": "one"}})") == "");
  CHECK(error_of_index(R"({"weight_map": {"a": "one", "c": "one"}})") ==
        "safetensors: '" + index + "': c is not in one, where the weight_map has it");
  CHECK(error_of_index(R"({"weight_map": {"a": "two"}})") ==
        "mapped_file: cannot open '" + (directory / "two") + "': No such file or directory");
  CHECK(error_of_index(R"({"weight_map": {"a": "../one"}})") ==
        "'" + index +
            "': $.weight_map.a is \"../one\", expected the name of a file beside the index");
  CHECK(error_of_index(R"({"weight_map": {"a": 1}})") ==
        "'" + index + "': $.weight_map.a is 1, expected a text");
  CHECK(error_of_index("{}") == "'" + index + "': $ has no member \"weight_map\"");
  std::filesystem::remove(index);
  CHECK_THROWS_WITH_AS(safetensors_file(directory.path()), doctest::Contains(index.c_str()),
                       lamina::io_error);
}

TEST_CASE("a file that is written is read back, each tensor aligned and bit for bit") {
  temporary_directory const directory;
  std::string const path = directory / "model.safetensors";
  safetensors_file const original(reference + "types.safetensors");
  lamina::write_safetensors(path, original.tensors(), original.metadata());
  safetensors_file const file(path);
  CHECK(file.metadata() == original.metadata());
  REQUIRE(file.tensors().size() == original.tensors().size());
  for (raw_tensor const& tensor : original.tensors()) {
    raw_tensor const& found = file.at(tensor.name);
    CHECK(found.type == tensor.type);
    CHECK(found.shape == tensor.shape);
    CHECK(found.bytes == tensor.bytes);
    auto const place = reinterpret_cast<std::uintptr_t>(found.bytes.data());
    CHECK(place % static_cast<std::size_t>(lamina::traits_of(found.type).bit_count / 8) == 0);
  }
  // In place of itself, while it is read.
  lamina::write_safetensors(path, file.tensors());
  CHECK(safetensors_file(path).at("matrix").bytes == original.at("matrix").bytes);
  CHECK(safetensors_file(path).metadata().empty());
  CHECK(directory.entries().size() == 1);
  lamina::write_safetensors(path, {});
  CHECK(lamina::read_file(path) == file_of("{}      ", 0));
}

TEST_CASE("a writer takes tensors in pieces and rounds scalars to the type of the file") {
  temporary_directory const directory;
  std::string const path = directory / "model.safetensors";
  std::vector<float> values(3000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 7;
  vector_view<float const> const view = values;
  safetensors_writer writer(path, {{"w", dtype::f32, {3, 1000}, {}},
                                   {"none", dtype::f32, {0}, {}},
                                   {"b", dtype::bf16, {3000}, {}}});
  writer.write(view.subview(0, 1000));
  writer.write(view.subview(1000, 2000));
  writer.write(view.subview(0, 1));
  writer.write(view.subview(1, 2999));
  writer.write(vector_view<float const>());
  CHECK_FALSE(std::filesystem::exists(path));
  writer.commit();
  safetensors_file const file(path);
  CHECK(file.at("w").bytes == lamina::bytes_of(view));
  CHECK(file.at("none").bytes.empty());
  std::vector<lamina::bf16> rounded(3000);
  file.read("b", vector_view<lamina::bf16>(rounded));
  for (std::size_t i = 0; i < 3000; ++i) {
    CHECK(rounded[i].bits == lamina::bf16(values[i]).bits);
  }
}

TEST_CASE("a writer that is given too much or too little says so, and the old file stays") {
  temporary_directory const directory;
  std::string const path = directory / "file";
  lamina::write_file_atomically(path, "old");
  {
    safetensors_writer writer(path, {{"a", dtype::f16, {2}, {}}, {"i", dtype::i8, {2}, {}}});
    std::vector<float> const values(3);
    CHECK_THROWS_WITH_AS(writer.write_bytes("12345"),
                         "safetensors_writer: 5 bytes are given, a has 4 left to write",
                         lamina::shape_error);
    CHECK_THROWS_WITH_AS(writer.commit(), "safetensors_writer: a has 4 bytes left to write",
                         lamina::shape_error);
    CHECK_THROWS_AS(writer.write(vector_view<float const>(values)), lamina::shape_error);
    writer.write(vector_view<float const>(values).subview(0, 2));
    CHECK_THROWS_WITH_AS(writer.write(vector_view<float const>(values)),
                         doctest::Contains("i has the type I8, expected"), lamina::config_error);
    writer.write_bytes("ab");
    CHECK_THROWS_WITH_AS(writer.write_bytes("c"), doctest::Contains("all tensors are written"),
                         lamina::shape_error);
  }
  CHECK(lamina::read_file(path) == "old");
  CHECK(directory.entries().size() == 1);
}

TEST_CASE("what a file cannot hold is refused before anything is written") {
  temporary_directory const directory;
  std::string const path = directory / "file";
  auto const refused = [&path](std::vector<raw_tensor> const& tensors,
                               safetensors_metadata const& metadata = {}) -> std::string {
    try {
      lamina::write_safetensors(path, tensors, metadata);
    } catch (lamina::error const& error) {
      return error.what();
    }
    return "";
  };
  CHECK(refused({{"a", dtype::f32, {2}, "abcd"}}) ==
        "write_safetensors: '" + path + "': a has 4 bytes, expected 8 by its shape and type");
  CHECK(refused({{"a", dtype::i8, {1}, "a"}, {"a", dtype::i8, {1}, "b"}}) ==
        "safetensors_writer: '" + path + "': the name a is used twice or __metadata__");
  CHECK(refused({{"__metadata__", dtype::i8, {1}, "a"}}) != "");
  CHECK(refused({{"\xff", dtype::i8, {1}, "a"}}) ==
        "safetensors_writer: '" + path + "': a name or the metadata is not UTF-8");
  CHECK(refused({}, {{"key", "\xc3"}}) != "");
  CHECK(refused({}, {{"key", std::string(100'000'000, 'x')}}).find("expected at most 100000000") !=
        std::string::npos);
  CHECK_THROWS_AS(safetensors_writer(path, {{"a", dtype::f32, {INT64_MAX}, {}}}),
                  lamina::config_error);
  CHECK(directory.entries().empty());
}

TEST_CASE("a full disk and a kill in the middle leave the old file") {
  temporary_directory const directory;
  std::string const path = directory / "file";
  std::string const bytes(100000, 'x');
  lamina::write_safetensors(path, {{"old", dtype::i8, {1}, "o"}});
  {
    file_size_limit const limit(50000);
    CHECK_THROWS_WITH_AS(lamina::write_safetensors(path, {{"a", dtype::i8, {100000}, bytes}}),
                         doctest::Contains("File too large"), lamina::io_error);
  }
  CHECK(directory.entries().size() == 1);
  CHECK(safetensors_file(path).at("old").bytes == "o");

  pid_t const child = ::fork();
  if (child == 0) {
    safetensors_writer writer(path, {{"a", dtype::i8, {100000}, {}}});
    writer.write_bytes(std::string_view(bytes).substr(0, 99999));
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));
  CHECK(safetensors_file(path).at("old").bytes == "o");
  lamina::write_safetensors(path, {{"a", dtype::i8, {100000}, bytes}});
  CHECK(safetensors_file(path).at("a").bytes == bytes);
}
