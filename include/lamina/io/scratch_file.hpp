// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Memory that lies in a file: for what is too large to stay in memory and need not outlive the
// process. POSIX.
#pragma once

#include <sys/mman.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "lamina/io/atomic_file.hpp"

LAMINA_NAMESPACE_BEGIN

/// A writable mapping of a file without a name: the system writes pages out when memory is short,
/// and takes the file back when the process ends, however it ends. Movable, not copyable.
class scratch_file {
 public:
  /// A file in `directory`, of no size yet.
  /// Throws io_error with the path and the system's message if it cannot be made.
  explicit scratch_file(std::string const& directory) : path_(directory + "/lamina-XXXXXX") {
    file_ = ::mkostemp(path_.data(), O_CLOEXEC);
    if (file_ < 0) detail::throw_errno("scratch_file", "create", path_, errno);
    if (::unlink(path_.c_str()) != 0) {
      int const code = errno;
      release();
      detail::throw_errno("scratch_file", "unlink", path_, code);
    }
  }
  scratch_file(scratch_file&& other) noexcept
      : path_(std::move(other.path_)),
        file_(std::exchange(other.file_, -1)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  scratch_file& operator=(scratch_file&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(file_, other.file_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~scratch_file() { release(); }

  /// Makes the file at least `size` bytes long; contents stay, new bytes are 0, and data() may
  /// move. Throws io_error if the disk has no room: it is asked here, so that no later write can
  /// fail.
  void reserve(std::size_t size) {
    if (size <= size_) return;
    int code = 0;
    do {
      code = ::posix_fallocate(file_, 0, static_cast<::off_t>(size));
    } while (code == EINTR);
    if (code != 0) detail::throw_errno("scratch_file::reserve", "make room in", path_, code);
    void* const mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (mapped == MAP_FAILED) detail::throw_errno("scratch_file::reserve", "map", path_, errno);
    if (data_ != nullptr) ::munmap(data_, size_);
    data_ = mapped;
    size_ = size;
  }

  /// The first byte, at the start of a page; null while nothing is reserved.
  void* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  void release() noexcept {
    if (data_ != nullptr) ::munmap(data_, size_);
    if (file_ >= 0) ::close(file_);
  }

  std::string path_;
  int file_ = -1;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

LAMINA_NAMESPACE_END
