// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stopping on request: SIGINT and SIGTERM end the run under way after its present step, so that the
// program can still report what is finished.
#pragma once

#include <atomic>
#include <csignal>
#include <exception>

namespace layer_sweep {

/// Thrown out of a run that was told to stop.
struct interruption : std::exception {
  char const* what() const noexcept override { return "interrupted"; }
};

namespace detail {

inline std::atomic<int> received_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may write it");

}  // namespace detail

/// The signal that asked the program to stop, 0 if none did.
inline int received_signal() { return detail::received_signal.load(); }

/// From now on the first SIGINT or SIGTERM is a request; a second one ends the process at once.
inline void stop_on_signals() {
  for (int const signal : {SIGINT, SIGTERM}) {
    std::signal(signal, [](int received) {
      detail::received_signal.store(received);
      std::signal(received, SIG_DFL);
    });
  }
}

inline void throw_if_interrupted() {
  if (received_signal() != 0) throw interruption{};
}

}  // namespace layer_sweep
