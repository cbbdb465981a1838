// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One line of progress on the error stream: rewritten in place on a terminal, printed now and then
// into a pipe.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <mutex>
#include <string>

#include "lamina/config.hpp"

namespace layer_sweep {

/// Counts items of work of about equal size. May be told from several threads.
class progress_line {
 public:
  /// title  what the line starts with
  /// total  items; a plain line is printed for about every tenth of them, and not within
  ///        two seconds of another
  progress_line(std::string title, lamina::index_t total)
      : title_(std::move(title)), total_(total), terminal_(::isatty(STDERR_FILENO) == 1) {}

  ~progress_line() { finish(); }
  progress_line(progress_line const&) = delete;
  progress_line& operator=(progress_line const&) = delete;

  /// `finished` items are done, of which `skipped` took no time; `what` describes the last one.
  void update(lamina::index_t finished, lamina::index_t skipped, std::string const& what) {
    std::lock_guard const hold(lock_);
    double const seconds = elapsed();
    bool const last = finished == total_;
    if (terminal_) {
      if (!last && seconds < next_seconds_) return;
      next_seconds_ = seconds + 0.1;
    } else {
      if (!last && (finished * 10 < next_tenth_ * total_ || seconds < next_seconds_)) return;
      next_tenth_ = finished * 10 / (total_ > 0 ? total_ : 1) + 1;
      next_seconds_ = seconds + 2;
    }
    std::string line = title_ + " " + std::to_string(finished) + "/" + std::to_string(total_);
    if (!what.empty()) line += "  " + what;
    line += "  " + seconds_text(seconds);
    if (finished > skipped && !last) {
      double const each = seconds / static_cast<double>(finished - skipped);
      line += ", about " + seconds_text(each * static_cast<double>(total_ - finished)) + " to go";
    }
    print(line);
    open_ = terminal_;
  }

  /// Ends the line, so that something else can be printed.
  void finish() {
    std::lock_guard const hold(lock_);
    if (open_) std::fputc('\n', stderr);
    open_ = false;
  }

  double elapsed() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  /// "0.8 s", "47 s", "3 min 5 s".
  static std::string seconds_text(double seconds) {
    char text[48];
    if (seconds < 10) {
      std::snprintf(text, sizeof text, "%.1f s", seconds);
    } else if (seconds < 100) {
      std::snprintf(text, sizeof text, "%.0f s", seconds);
    } else {
      auto const whole = static_cast<long>(seconds + 0.5);
      std::snprintf(text, sizeof text, "%ld min %ld s", whole / 60, whole % 60);
    }
    return text;
  }

 private:
  void print(std::string const& line) const {
    // Carriage return, the line, and "erase to the end" for what a longer line left behind.
    if (terminal_) {
      std::fprintf(stderr, "\r%s\x1b[K", line.c_str());
    } else {
      std::fprintf(stderr, "%s\n", line.c_str());
    }
    std::fflush(stderr);
  }

  std::string title_;
  lamina::index_t total_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double next_seconds_ = 0;  // earliest time of the next line
  lamina::index_t next_tenth_ = 1;
  bool open_ = false;
  std::mutex lock_;
};

}  // namespace layer_sweep
