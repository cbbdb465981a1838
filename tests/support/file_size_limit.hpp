// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A disk that is full for a while.
#pragma once

#include <sys/resource.h>

#include <csignal>

namespace lamina::testing {

// Lowers the size a file may grow to: writes past it fail with EFBIG, as on a full disk.
class file_size_limit {
 public:
  explicit file_size_limit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    ::rlimit lowered = before_;
    lowered.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &lowered);
  }
  ~file_size_limit() { ::setrlimit(RLIMIT_FSIZE, &before_); }
  file_size_limit(file_size_limit const&) = delete;
  file_size_limit& operator=(file_size_limit const&) = delete;

 private:
  ::rlimit before_{};
};

}  // namespace lamina::testing
