// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/io/scratch_file.hpp"

#include <doctest/doctest.h>

#include "tests/support/temporary_directory.hpp"

using namespace lamina;

TEST_CASE("a scratch file grows, keeps its bytes, and leaves no name behind") {
  testing::temporary_directory const directory;
  scratch_file file(directory.path());
  CHECK(directory.entries().empty());
  CHECK(file.data() == nullptr);
  file.reserve(10);
  auto* bytes = static_cast<unsigned char*>(file.data());
  for (unsigned char i = 0; i < 10; ++i) bytes[i] = i;
  file.reserve(100000);
  bytes = static_cast<unsigned char*>(file.data());
  for (unsigned char i = 0; i < 10; ++i) CHECK(bytes[i] == i);
  CHECK(bytes[99999] == 0);
  CHECK(file.size() == 100000);
  file.reserve(5);
  CHECK(file.size() == 100000);
  CHECK(file.data() == bytes);
}

TEST_CASE("a scratch file moves with its mapping") {
  testing::temporary_directory const directory;
  scratch_file first(directory.path());
  first.reserve(8);
  static_cast<char*>(first.data())[7] = 'x';
  scratch_file second(std::move(first));
  CHECK(static_cast<char*>(second.data())[7] == 'x');
  scratch_file third(directory.path());
  third = std::move(second);
  CHECK(static_cast<char*>(third.data())[7] == 'x');
}

TEST_CASE("a scratch file in a directory that does not exist is refused with its path") {
  CHECK_THROWS_WITH_AS(scratch_file("/nowhere/at/all"),
                       doctest::Contains("scratch_file: cannot create '/nowhere/at/all/lamina-"),
                       io_error);
}

TEST_CASE("a scratch file larger than any disk is refused, and stays as it was") {
  testing::temporary_directory const directory;
  scratch_file file(directory.path());
  file.reserve(4);
  static_cast<char*>(file.data())[3] = 'y';
  CHECK_THROWS_AS(file.reserve(std::size_t{1} << 60), io_error);
  CHECK(file.size() == 4);
  CHECK(static_cast<char*>(file.data())[3] == 'y');
}
