// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stopping on request: SIGINT and SIGTERM end the run under way after its present step, so that the
// program can still report what is finished.
#pragma once

#include <signal.h>

#include <exception>

namespace layer_sweep {

/// Thrown out of a run that was told to stop.
struct interruption : std::exception {
  char const* what() const noexcept override { return "interrupted"; }
};

/// From now on SIGINT and SIGTERM are requests, in this thread and in those it starts afterwards.
///
/// They stay pending and are asked for. A handler would run on the stack of the thread it
/// interrupts, and matrix kernels of oneDNN 2.6 keep data below their stack pointer: a handler that
/// ran during a product left the heap corrupted.
inline void stop_on_signals() {
  sigset_t requests;
  sigemptyset(&requests);
  sigaddset(&requests, SIGINT);
  sigaddset(&requests, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &requests, nullptr);
}

/// The signal that asked the program to stop, 0 if none did.
inline int received_signal() {
  sigset_t pending;
  sigpending(&pending);
  for (int const signal : {SIGINT, SIGTERM}) {
    if (sigismember(&pending, signal) == 1) return signal;
  }
  return 0;
}

inline void throw_if_interrupted() {
  if (received_signal() != 0) throw interruption{};
}

}  // namespace layer_sweep
