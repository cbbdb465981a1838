// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A whole file as memory, to read. POSIX.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "lamina/io/atomic_file.hpp"

LAMINA_NAMESPACE_BEGIN

/// The bytes of a file, read by the system when they are looked at. They stay where they are when
/// the object is moved. Nobody may shorten the file meanwhile: the system answers a look past its
/// end with a signal. Replacing it by rename, as write_file_atomically does, is harmless.
/// Movable, not copyable.
class mapped_file {
 public:
  /// Throws io_error if the path is not a regular file or cannot be opened or mapped.
  explicit mapped_file(std::string path) : path_(std::move(path)) {
    // A pipe would make open() wait for its writer.
    detail::file_descriptor const file(detail::open_file(path_.c_str(), O_RDONLY | O_NONBLOCK));
    struct ::stat status {};
    if (file.get() < 0 || ::fstat(file.get(), &status) != 0) {
      detail::throw_errno("mapped_file", "open", path_, errno);
    }
    if (!S_ISREG(status.st_mode)) {
      throw_io_error("mapped_file: '", path_, "' is not a regular file");
    }
    if (status.st_size == 0) return;  // the system maps no empty range
    std::size_t const size = static_cast<std::size_t>(status.st_size);
    void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (address == MAP_FAILED) detail::throw_errno("mapped_file", "map", path_, errno);
    bytes_ = {static_cast<char const*>(address), size};
  }
  mapped_file(mapped_file&& other) noexcept
      : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~mapped_file() {
    if (!bytes_.empty()) ::munmap(const_cast<char*>(bytes_.data()), bytes_.size());
  }

  std::string const& path() const noexcept { return path_; }
  std::string_view bytes() const noexcept { return bytes_; }

 private:
  std::string path_;
  std::string_view bytes_;
};

LAMINA_NAMESPACE_END
