// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The parallel_for hook of this program: whole runs on std::thread, one at a time each.
#pragma once

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "lamina/core/lanes.hpp"

namespace layer_sweep {

/// Calls f(begin, end) on ranges of `grain` items that cover [0, count), each thread taking the
/// next range when it has finished one: items of uneven length keep all threads busy. The first
/// exception stops the handing out and is rethrown when every thread has ended.
struct thread_for {
  lamina::index_t threads = 1;

  template <class F>
  void operator()(lamina::index_t count, lamina::index_t grain, F&& f) const {
    using lamina::index_t;
    index_t const step = grain > 0 ? grain : 1;
    index_t const ranges = (count + step - 1) / step;
    std::atomic<index_t> next{0};
    std::exception_ptr failure;
    std::mutex failure_lock;
    auto const work = [&] {
      for (;;) {
        index_t const range = next.fetch_add(1);
        if (range >= ranges) return;
        index_t const begin = range * step;
        index_t const end = begin + step < count ? begin + step : count;
        try {
          f(begin, end);
        } catch (...) {
          std::lock_guard const hold(failure_lock);
          if (!failure) failure = std::current_exception();
          next = ranges;
        }
      }
    };
    index_t const helpers = (threads < ranges ? threads : ranges) - 1;
    std::vector<std::thread> pool;
    for (index_t i = 0; i < helpers; ++i) pool.emplace_back(work);
    work();
    for (std::thread& thread : pool) thread.join();
    if (failure) std::rethrow_exception(failure);
  }
};

static_assert(lamina::parallel_for<thread_for>);

}  // namespace layer_sweep
