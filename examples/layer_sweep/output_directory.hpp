// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where a sweep keeps its files: one process at a time, nothing half-written left behind.
#pragma once

#include <filesystem>
#include <string>
#include <utility>

#include "lamina/study/sweep_journal.hpp"

namespace layer_sweep {

/// The output directory, for one process at a time: the lock is held as long as this lives.
class output_directory {
 public:
  /// Makes the directory and removes what a killed process left half written. Throws io_error.
  explicit output_directory(std::string path)
      : path_((lamina::ensure_directory(path), std::move(path))), lock_(path_ + "/.lock") {
    for (auto const& entry : std::filesystem::directory_iterator(path_)) {
      if (entry.path().extension() == ".tmp") std::filesystem::remove(entry.path());
    }
  }

  std::string file(std::string const& name) const { return path_ + "/" + name; }

  /// Makes the journal ready: taken over if the sweep is resumed, else moved out of the way, so
  /// that finished runs are not lost. Throws as lamina::sweep_journal.
  std::string journal(bool resume, std::string const& key) const {
    std::string const path = file("journal.txt");
    if (!resume && std::filesystem::exists(path)) {
      std::filesystem::rename(path, file("journal.previous.txt"));
    }
    lamina::sweep_journal const checked(path, resume, key);
    return path;
  }

 private:
  std::string path_;
  lamina::append_log lock_;
};

}  // namespace layer_sweep
