// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/io/atomic_file.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>

#include <csignal>
#include <filesystem>

#include "tests/support/file_size_limit.hpp"
#include "tests/support/temporary_directory.hpp"

using lamina::testing::file_size_limit;
using lamina::testing::temporary_directory;

TEST_CASE("a file written is the file read, and nothing else is left beside it") {
  temporary_directory const directory;
  std::string bytes(300000, 'x');
  bytes[7] = '\0';
  bytes += "\nend";
  lamina::write_file_atomically(directory / "file", bytes);
  CHECK(lamina::read_file(directory / "file") == bytes);
  lamina::write_file_atomically(directory / "file", "");
  CHECK(lamina::read_file(directory / "file").empty());
  CHECK(directory.entries() == std::vector<std::string>{"file"});
}

TEST_CASE("a failed write leaves the old file and no temporary") {
  temporary_directory const directory;
  lamina::write_file_atomically(directory / "file", "old");
  {
    file_size_limit const limit(1000);
    CHECK_THROWS_WITH_AS(lamina::write_file_atomically(directory / "file", std::string(5000, 'x')),
                         doctest::Contains("File too large"), lamina::io_error);
  }
  CHECK(lamina::read_file(directory / "file") == "old");
  CHECK(directory.entries() == std::vector<std::string>{"file"});
}

TEST_CASE("a path that cannot be a file is an error that names it") {
  temporary_directory const directory;
  std::filesystem::create_directory(directory / "folder");
  CHECK_THROWS_WITH_AS(lamina::write_file_atomically(directory / "folder", "x"),
                       ("write_file_atomically: cannot rename a temporary to '" +
                        (directory / "folder") + "': Is a directory")
                           .c_str(),
                       lamina::io_error);
  CHECK(directory.entries() == std::vector<std::string>{"folder"});
  CHECK_THROWS_WITH_AS(lamina::write_file_atomically(directory / "no/file", "x"),
                       doctest::Contains("No such file or directory"), lamina::io_error);
  CHECK_THROWS_WITH_AS(
      lamina::read_file(directory / "absent"),
      ("read_file: cannot open '" + (directory / "absent") + "': No such file or directory")
          .c_str(),
      lamina::io_error);
  CHECK_THROWS_WITH_AS(lamina::read_file(directory.path()), doctest::Contains("cannot read"),
                       lamina::io_error);
}

TEST_CASE("a temporary left by a killed process is in nobody's way") {
  temporary_directory const directory;
  std::string const stale = (directory / "file") + "." + std::to_string(::getpid()) + ".0.tmp";
  lamina::write_file_atomically(stale, "torn");
  lamina::write_file_atomically(directory / "file", "whole");
  CHECK(lamina::read_file(directory / "file") == "whole");
  CHECK(lamina::read_file(stale) == "torn");
}

TEST_CASE("ensure_directory makes all parents and is content with what exists") {
  temporary_directory const directory;
  lamina::ensure_directory(directory / "a/b/c");
  lamina::ensure_directory(directory / "a/b/c");
  lamina::ensure_directory(directory / "a//b/d/");
  CHECK(std::filesystem::is_directory(directory / "a/b/c"));
  CHECK(std::filesystem::is_directory(directory / "a/b/d"));
  lamina::ensure_directory("/");
  lamina::ensure_directory(".");
}

TEST_CASE("ensure_directory says which component is in the way") {
  temporary_directory const directory;
  lamina::write_file_atomically(directory / "file", "x");
  std::string const text =
      "ensure_directory: '" + (directory / "file") + "' is a file, expected a directory";
  CHECK_THROWS_WITH_AS(lamina::ensure_directory(directory / "file"), text.c_str(),
                       lamina::io_error);
  CHECK_THROWS_WITH_AS(lamina::ensure_directory(directory / "file/below"), text.c_str(),
                       lamina::io_error);
  CHECK_THROWS_WITH_AS(lamina::ensure_directory(""),
                       "ensure_directory: the path is empty, expected a directory",
                       lamina::io_error);
  CHECK_THROWS_WITH_AS(lamina::ensure_directory("/proc/lamina"),
                       doctest::Contains("cannot make directory '/proc/lamina'"), lamina::io_error);
  CHECK_THROWS_WITH_AS(lamina::ensure_directory("/proc/self"),
                       doctest::Contains("cannot write to directory '/proc/self'"),
                       lamina::io_error);
}

TEST_CASE("append_log keeps what was there and adds whole records") {
  temporary_directory const directory;
  {
    lamina::append_log log(directory / "log");
    CHECK(log.read().empty());
    log.append("one\n");
    log.append("two\n");
    CHECK(log.read() == "one\ntwo\n");
  }
  lamina::append_log log(directory / "log");
  log.append("three\n");
  CHECK(log.read() == "one\ntwo\nthree\n");
  log.truncate(4);
  log.append("four\n");
  CHECK(lamina::read_file(directory / "log") == "one\nfour\n");
}

TEST_CASE("append_log takes a record back that did not fit") {
  temporary_directory const directory;
  lamina::append_log log(directory / "log");
  log.append("one\n");
  {
    file_size_limit const limit(10);
    CHECK_THROWS_WITH_AS(
        log.append("a record of more than six bytes\n"),
        ("append_log::append: cannot append to '" + (directory / "log") + "': File too large")
            .c_str(),
        lamina::io_error);
  }
  log.append("two\n");
  CHECK(log.read() == "one\ntwo\n");
}

TEST_CASE("append_log: one writer at a time, and a killed writer does not count") {
  temporary_directory const directory;
  std::string const text =
      "append_log: '" + (directory / "log") + "' is being written by another process";
  {
    lamina::append_log log(directory / "log");
    CHECK_THROWS_WITH_AS(lamina::append_log(directory / "log"), text.c_str(), lamina::io_error);
  }
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  pid_t const child = ::fork();
  if (child == 0) {
    lamina::append_log log(directory / "log");
    log.append("child\n");
    char const byte = 'x';
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK_THROWS_WITH_AS(lamina::append_log(directory / "log"), text.c_str(), lamina::io_error);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  lamina::append_log log(directory / "log");
  CHECK(log.read() == "child\n");
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_CASE("append_log names the path it cannot open") {
  temporary_directory const directory;
  CHECK_THROWS_WITH_AS(
      lamina::append_log(directory / "no/log"),
      ("append_log: cannot open '" + (directory / "no/log") + "': No such file or directory")
          .c_str(),
      lamina::io_error);
  CHECK_THROWS_WITH_AS(lamina::append_log(directory.path()), doctest::Contains("Is a directory"),
                       lamina::io_error);
}
