// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Files that are whole or absent: atomic replacement, and an append-only log that one process at a
// time may write. POSIX.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "lamina/core/error.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// One sentence for a refused call: who, what it tried, on which path, and the system's own words.
[[noreturn]] inline void throw_errno(char const* function, char const* action,
                                     std::string const& path, int code) {
  throw_io_error(function, ": cannot ", action, " '", path, "': ", std::strerror(code));
}

// Closes on the way out, so that an error does not leak a descriptor.
class file_descriptor {
 public:
  explicit file_descriptor(int value) noexcept : value_(value) {}
  file_descriptor(file_descriptor const&) = delete;
  file_descriptor& operator=(file_descriptor const&) = delete;
  ~file_descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const noexcept { return value_; }

 private:
  int value_;
};

inline int open_file(char const* path, int flags, mode_t mode = 0) {
  int descriptor = -1;
  do {
    descriptor = ::open(path, flags | O_CLOEXEC, mode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

// Writes every byte; false with errno set when the system refuses, some bytes may be written then.
inline bool write_fully(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t const written = ::write(descriptor, bytes.data(), bytes.size());
    if (written > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(written));
    } else if (written < 0 && errno != EINTR) {
      return false;
    }
  }
  return true;
}

// Appends everything from the current offset to the end; false with errno set on failure.
inline bool read_fully(int descriptor, std::string& bytes) {
  char block[65536];
  for (;;) {
    ssize_t const count = ::read(descriptor, block, sizeof block);
    if (count == 0) return true;
    if (count > 0) {
      bytes.append(block, static_cast<std::size_t>(count));
    } else if (errno != EINTR) {
      return false;
    }
  }
}

inline bool sync_file(int descriptor) {
  int result = 0;
  do {
    result = ::fsync(descriptor);
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

inline std::string parent_directory(std::string const& path) {
  std::size_t const slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Makes a new or renamed entry of the directory durable. File systems that cannot sync a directory
// say EINVAL; there is nothing more to be done on them.
inline void sync_directory(char const* function, std::string const& directory) {
  file_descriptor const opened(open_file(directory.c_str(), O_RDONLY | O_DIRECTORY));
  if (opened.get() < 0) throw_errno(function, "open directory", directory, errno);
  if (!sync_file(opened.get()) && errno != EINVAL) {
    throw_errno(function, "sync directory", directory, errno);
  }
}

// Removes a temporary file, once it is made, unless it has been renamed to its place.
class temporary_file {
 public:
  temporary_file() = default;
  temporary_file(temporary_file const&) = delete;
  temporary_file& operator=(temporary_file const&) = delete;
  ~temporary_file() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  std::string const& path() const noexcept { return path_; }
  void remove_at_end(std::string path) noexcept { path_ = std::move(path); }
  void keep() noexcept { path_.clear(); }

 private:
  std::string path_;
};

}  // namespace detail

/// Makes a directory and every missing parent, and checks that files can be made in it.
///
/// Throws io_error if a component is not a directory, cannot be made, or the directory is not
/// writable.
inline void ensure_directory(std::string const& path) {
  if (path.empty()) throw_io_error("ensure_directory: the path is empty, expected a directory");
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    std::string const prefix = path.substr(0, end);
    if (::mkdir(prefix.c_str(), 0777) != 0) {
      int const code = errno;  // some systems refuse an existing directory with other codes
      struct ::stat status {};
      bool const exists = ::stat(prefix.c_str(), &status) == 0;
      if (exists && !S_ISDIR(status.st_mode)) {
        throw_io_error("ensure_directory: '", prefix, "' is a file, expected a directory");
      }
      if (!exists) detail::throw_errno("ensure_directory", "make directory", prefix, code);
    }
    if (end == std::string::npos) break;
  }
  if (::access(path.c_str(), W_OK | X_OK) != 0) {
    detail::throw_errno("ensure_directory", "write to directory", path, errno);
  }
}

/// The whole content of a file. Throws io_error if it cannot be opened or read.
inline std::string read_file(std::string const& path) {
  detail::file_descriptor const file(detail::open_file(path.c_str(), O_RDONLY));
  if (file.get() < 0) detail::throw_errno("read_file", "open", path, errno);
  std::string bytes;
  if (!detail::read_fully(file.get(), bytes)) {
    detail::throw_errno("read_file", "read", path, errno);
  }
  return bytes;
}

/// A file that replaces another, or is made, whole or not at all: after commit(), also after a
/// crash at any moment, the path holds either the old content or all that was written. A symbolic
/// link is replaced by a file.
///
/// Writes a temporary beside the path (on the same file system, so that the rename is atomic). An
/// object that ends without commit() leaves no temporary and the old file untouched; only a process
/// killed in the middle leaves its "<path>.<pid>.<n>.tmp".
class atomic_file {
 public:
  /// function  what errors begin with
  /// Throws io_error with the path and the system's message, as every member does.
  explicit atomic_file(std::string path, char const* function = "atomic_file")
      : path_(std::move(path)), function_(function), file_(create()) {}

  /// Appends to the new content.
  void write(std::string_view bytes) {
    if (!detail::write_fully(file_.get(), bytes)) fail("write", temporary_.path());
  }

  /// Puts the new content in its place, on the disk. Nothing may be written afterwards.
  void commit() {
    if (!detail::sync_file(file_.get())) fail("sync", temporary_.path());
    if (::rename(temporary_.path().c_str(), path_.c_str()) != 0) {
      fail("rename a temporary to", path_);
    }
    temporary_.keep();
    detail::sync_directory(function_, detail::parent_directory(path_));
  }

 private:
  [[noreturn]] void fail(char const* action, std::string const& path) const {
    detail::throw_errno(function_, action, path, errno);
  }

  // Opens a file that is not there yet, and names it in temporary_.
  int create() {
    for (int attempt = 0;; ++attempt) {
      std::string name =
          detail::join(path_, ".", static_cast<long>(::getpid()), ".", attempt, ".tmp");
      int const descriptor = detail::open_file(name.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666);
      if (descriptor >= 0) {
        temporary_.remove_at_end(std::move(name));
        return descriptor;
      }
      if (errno != EEXIST || attempt == 1000) fail("create", name);
    }
  }

  std::string path_;
  char const* function_;
  detail::temporary_file temporary_;
  detail::file_descriptor file_;
};

/// Replaces the content of a file, or makes it, by `bytes`, as atomic_file does.
/// Throws io_error with the path and the system's message.
inline void write_file_atomically(std::string const& path, std::string_view bytes) {
  atomic_file file(path, "write_file_atomically");
  file.write(bytes);
  file.commit();
}

/// A file that only grows, record by record: a record that append() returned from is on disk.
///
/// Holds an exclusive lock for its life, so that two processes cannot write one log; the system
/// releases it when the process ends, however it ends. A process killed inside append() leaves a
/// prefix of its record at the end of the file: the reader finds it (a record should end with a
/// mark, a newline for instance) and drops it with truncate(). Calls must not overlap.
class append_log {
 public:
  /// Opens the log, or makes it. Throws io_error if that fails or another writer holds it.
  explicit append_log(std::string path)
      : path_(std::move(path)),
        file_(detail::open_file(path_.c_str(), O_RDWR | O_APPEND | O_CREAT, 0666)) {
    if (file_.get() < 0) detail::throw_errno("append_log", "open", path_, errno);
    int result = 0;
    do {
      result = ::flock(file_.get(), LOCK_EX | LOCK_NB);
    } while (result != 0 && errno == EINTR);
    if (result != 0 && errno == EWOULDBLOCK) {
      throw_io_error("append_log: '", path_, "' is being written by another process");
    }
    if (result != 0) detail::throw_errno("append_log", "lock", path_, errno);
    // A log that was just made must not vanish with its first record in a crash.
    if (::lseek(file_.get(), 0, SEEK_END) == 0) {
      detail::sync_directory("append_log", detail::parent_directory(path_));
    }
  }

  std::string const& path() const noexcept { return path_; }

  /// Everything in the log. Throws io_error.
  std::string read() const {
    std::string bytes;
    if (::lseek(file_.get(), 0, SEEK_SET) < 0 || !detail::read_fully(file_.get(), bytes)) {
      detail::throw_errno("append_log::read", "read", path_, errno);
    }
    return bytes;
  }

  /// Appends a whole record and waits until it is on disk. If that fails, what was written of it
  /// is taken back, so that the next record does not follow a torn one. Throws io_error.
  void append(std::string_view record) {
    ::off_t const size = ::lseek(file_.get(), 0, SEEK_END);
    if (size < 0) detail::throw_errno("append_log::append", "seek", path_, errno);
    if (!detail::write_fully(file_.get(), record) || !detail::sync_file(file_.get())) {
      int const code = errno;
      if (::ftruncate(file_.get(), size) != 0) {
        detail::throw_errno("append_log::append", "take back a torn record of", path_, errno);
      }
      detail::throw_errno("append_log::append", "append to", path_, code);
    }
  }

  /// Cuts the log to its first `size` bytes. Throws io_error.
  void truncate(std::size_t size) {
    if (::ftruncate(file_.get(), static_cast<::off_t>(size)) != 0 ||
        !detail::sync_file(file_.get())) {
      detail::throw_errno("append_log::truncate", "cut", path_, errno);
    }
  }

 private:
  std::string path_;
  detail::file_descriptor file_;
};

LAMINA_NAMESPACE_END
