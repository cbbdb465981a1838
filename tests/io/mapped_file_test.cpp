// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/io/mapped_file.hpp"

#include <doctest/doctest.h>

#include "tests/support/temporary_directory.hpp"

using lamina::mapped_file;
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
