// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Files as memory: a whole file to read, and scratch space that may be larger than memory. POSIX.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "lamina/core/view.hpp"
#include "lamina/io/atomic_file.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Mapped memory and its end.
class mapping {
 public:
  mapping() = default;
  mapping(void* address, std::size_t size) noexcept : address_(address), size_(size) {}
  mapping(mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  mapping& operator=(mapping&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~mapping() {
    if (address_ != nullptr) ::munmap(address_, size_);
  }
  void* address() const noexcept { return address_; }
  std::size_t size() const noexcept { return size_; }

 private:
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

// Maps the first `size` bytes, none if size is 0. Throws io_error.
inline mapping map_descriptor(char const* function, std::string const& path, int descriptor,
                              std::size_t size, int protection, int flags) {
  if (size == 0) return {};
  void* const address = ::mmap(nullptr, size, protection, flags, descriptor, 0);
  if (address == MAP_FAILED) throw_errno(function, "map", path, errno);
  return {address, size};
}

}  // namespace detail

/// The bytes of a file, read by the system when they are looked at. They stay where they are when
/// the object is moved. Nobody may shorten the file meanwhile: the system answers a look past its
/// end with a signal. Replacing it by rename, as write_file_atomically does, is harmless.
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
    memory_ =
        detail::map_descriptor("mapped_file", path_, file.get(),
                               static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE);
  }

  std::string const& path() const noexcept { return path_; }
  std::string_view bytes() const noexcept {
    return {static_cast<char const*>(memory_.address()), memory_.size()};
  }

 private:
  std::string path_;
  detail::mapping memory_;
};

/// Memory of elements of T, all zero bits at first, that lies in a nameless temporary file: the
/// system writes it out when memory is short. Gone with the object, however the process ends.
template <class T>
class scratch_mapping {
 public:
  /// directory  on the file system that is to hold it
  /// Throws config_error if element_count is negative, io_error if the file cannot be made or the
  /// disk has no room for all of it, which is claimed here, so that a later write cannot fail.
  scratch_mapping(std::string const& directory, index_t element_count) {
    if (element_count < 0 || element_count > INT64_MAX / static_cast<index_t>(sizeof(T))) {
      throw_config_error("scratch_mapping: element_count is ", element_count, ", expected 0 to ",
                         INT64_MAX / static_cast<index_t>(sizeof(T)));
    }
    std::string name = directory + "/lamina_scratch_XXXXXX";
    detail::file_descriptor const file(::mkostemp(name.data(), O_CLOEXEC));
    if (file.get() < 0) detail::throw_errno("scratch_mapping", "create", name, errno);
    ::unlink(name.c_str());
    std::size_t const size = static_cast<std::size_t>(element_count) * sizeof(T);
    if (size > 0) {
      int const code = ::posix_fallocate(file.get(), 0, static_cast<::off_t>(size));
      if (code != 0) detail::throw_errno("scratch_mapping", "claim room for", name, code);
    }
    memory_ = detail::map_descriptor("scratch_mapping", name, file.get(), size,
                                     PROT_READ | PROT_WRITE, MAP_SHARED);
  }

  vector_view<T> values() const noexcept {
    return {static_cast<T*>(memory_.address()), static_cast<index_t>(memory_.size() / sizeof(T))};
  }

 private:
  static_assert(std::is_trivially_copyable_v<T>);
  detail::mapping memory_;
};

LAMINA_NAMESPACE_END
