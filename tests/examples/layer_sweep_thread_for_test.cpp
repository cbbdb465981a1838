// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/thread_for.hpp"

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>

using lamina::index_t;
using layer_sweep::thread_for;

TEST_CASE("thread_for: every item once, whatever the threads and the grain") {
  for (index_t threads : {1, 2, 7}) {
    for (index_t count : {0, 1, 5, 100}) {
      for (index_t grain : {0, 1, 3, 1000}) {
        std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
        thread_for{threads}(count, grain, [&](index_t begin, index_t end) {
          for (index_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
        });
        for (auto const& n : visits) REQUIRE(n == 1);
      }
    }
  }
}

TEST_CASE("thread_for: items run at the same time") {
  // Two items that wait for each other finish only on two threads.
  std::atomic<int> arrived{0};
  thread_for{2}(2, 1, [&](index_t, index_t) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
  });
  CHECK(arrived == 2);
}

TEST_CASE("thread_for: the first exception stops the handing out and is thrown on") {
  for (index_t threads : {1, 4}) {
    std::atomic<int> begun{0};
    auto const work = [&](index_t begin, index_t) {
      ++begun;
      if (begin >= 2) throw std::runtime_error("item " + std::to_string(begin));
    };
    CHECK_THROWS_AS(thread_for{threads}(1000, 1, work), std::runtime_error);
    CHECK(begun < 1000);
  }
}
