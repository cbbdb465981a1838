// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/io/mapped_file.hpp"

#include <doctest/doctest.h>

#include "tests/support/temporary_directory.hpp"

using lamina::mapped_file;
using lamina::scratch_mapping;
using lamina::testing::temporary_directory;

TEST_CASE("a mapped file has the bytes of the file, and keeps their place when it is moved") {
  temporary_directory const directory;
  std::string const bytes = std::string(10000, 'a') + '\0' + "end";
  lamina::write_file_atomically(directory / "file", bytes);
  mapped_file file(directory / "file");
  CHECK(file.bytes() == bytes);
  CHECK(file.path() == directory / "file");
  char const* const place = file.bytes().data();
  mapped_file const moved = std::move(file);
  CHECK(moved.bytes() == bytes);
  CHECK(moved.bytes().data() == place);
  // A file that is replaced is still there for who has it mapped.
  lamina::write_file_atomically(directory / "file", "new");
  CHECK(moved.bytes() == bytes);
}

TEST_CASE("an empty file maps to no bytes") {
  temporary_directory const directory;
  lamina::write_file_atomically(directory / "file", "");
  CHECK(mapped_file(directory / "file").bytes().empty());
}

TEST_CASE("what is not a regular file is an error that names it") {
  temporary_directory const directory;
  CHECK_THROWS_WITH_AS(
      mapped_file(directory / "absent"),
      ("mapped_file: cannot open '" + (directory / "absent") + "': No such file or directory")
          .c_str(),
      lamina::io_error);
  CHECK_THROWS_WITH_AS(mapped_file(directory.path()), doctest::Contains("is not a regular file"),
                       lamina::io_error);
  REQUIRE(::mkfifo((directory / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH_AS(mapped_file(directory / "pipe"), doctest::Contains("is not a regular file"),
                       lamina::io_error);
}

TEST_CASE("scratch space is zero at first, holds what is written, and leaves no file") {
  temporary_directory const directory;
  {
    scratch_mapping<float> const scratch(directory.path(), 5000);
    REQUIRE(scratch.values().size == 5000);
    CHECK(scratch.values()[0] == 0.f);
    CHECK(scratch.values()[4999] == 0.f);
    for (lamina::index_t i = 0; i < 5000; ++i) scratch.values()[i] = static_cast<float>(i);
    CHECK(scratch.values()[4999] == 4999.f);
    CHECK(directory.entries().empty());
  }
  CHECK(scratch_mapping<float>(directory.path(), 0).values().empty());
}

TEST_CASE("scratch space that cannot be had is refused when it is asked for") {
  temporary_directory const directory;
  CHECK_THROWS_WITH_AS(scratch_mapping<float>(directory / "absent", 1),
                       doctest::Contains("No such file or directory"), lamina::io_error);
  CHECK_THROWS_AS(scratch_mapping<double>(directory.path(), INT64_MAX / 8), lamina::io_error);
  CHECK_THROWS_AS(scratch_mapping<double>(directory.path(), INT64_MAX / 8 + 1),
                  lamina::config_error);
  CHECK_THROWS_WITH_AS(scratch_mapping<float>(directory.path(), -1),
                       doctest::Contains("element_count is -1"), lamina::config_error);
  CHECK(directory.entries().empty());
}
