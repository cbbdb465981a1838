// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the engine stands on: one arena for every number it keeps, and a pool of threads. Neither
// throws; what cannot go on ends the program.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

namespace engine {

[[noreturn]] inline void fatal(char const* words) {
  std::fprintf(stderr, "engine: %s\n", words);
  std::exit(1);
}

/// Memory that is taken piece by piece and given back from the end, all of it mapped once.
class arena {
 public:
  explicit arena(std::size_t size) : size_(size) {
    void* const mapped =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) fatal("no memory for the arena");
    begin_ = static_cast<char*>(mapped);
  }
  arena(arena const&) = delete;
  arena& operator=(arena const&) = delete;
  ~arena() { ::munmap(begin_, size_); }

  /// `count` zeroed values, at a cache line of their own.
  template <class T>
  T* take(long count) {
    std::size_t const bytes = (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    if (bytes > size_ - used_) fatal("the arena is full");
    void* const piece = begin_ + used_;
    used_ += bytes;
    std::memset(piece, 0, bytes);
    return static_cast<T*>(piece);
  }
  std::size_t used() const { return used_; }
  /// Gives back what was taken since used() was `mark`.
  void release(std::size_t mark) { used_ = mark; }

 private:
  char* begin_ = nullptr;
  std::size_t size_, used_ = 0;
};

/// Threads that wait for ranges of one loop at a time.
class thread_pool {
 public:
  explicit thread_pool(int thread_count) : worker_count_(thread_count - 1) {
    for (int i = 0; i < worker_count_ && i < most_workers; ++i) {
      workers_[i] = std::thread([this] { wait_for_work(); });
    }
  }
  thread_pool(thread_pool const&) = delete;
  thread_pool& operator=(thread_pool const&) = delete;
  ~thread_pool() {
    {
      std::lock_guard<std::mutex> const lock(mutex_);
      ending_ = true;
    }
    begin_.notify_all();
    for (std::thread& worker : workers_) {
      if (worker.joinable()) worker.join();
    }
  }

  /// Calls f(begin, end) on ranges of at least `grain` that cover [0, count) once each; returns
  /// when all have.
  template <class F>
  void run(long count, long grain, F&& f) {
    if (count <= grain || worker_count_ == 0) {
      if (count > 0) f(0L, count);
      return;
    }
    {
      std::lock_guard<std::mutex> const lock(mutex_);
      call_ = [](void* function, long begin, long end) {
        (*static_cast<std::remove_reference_t<F>*>(function))(begin, end);
      };
      function_ = const_cast<void*>(static_cast<void const*>(&f));
      count_ = count;
      chunk_ = (count + 4 * worker_count_ + 3) / (4 * (worker_count_ + 1));
      if (chunk_ < grain) chunk_ = grain;
      next_ = 0;
      working_ = worker_count_;
      ++loop_;
    }
    begin_.notify_all();
    work();
    std::unique_lock<std::mutex> lock(mutex_);
    end_.wait(lock, [this] { return working_ == 0; });
  }

 private:
  static constexpr int most_workers = 63;

  void work() {
    for (long first; (first = next_.fetch_add(chunk_)) < count_;) {
      call_(function_, first, first + chunk_ < count_ ? first + chunk_ : count_);
    }
  }
  void wait_for_work() {
    for (long seen = 0;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        begin_.wait(lock, [&] { return ending_ || loop_ != seen; });
        if (ending_) return;
        seen = loop_;
      }
      work();
      std::lock_guard<std::mutex> const lock(mutex_);
      if (--working_ == 0) end_.notify_one();
    }
  }

  int worker_count_;
  std::thread workers_[most_workers];
  std::mutex mutex_;
  std::condition_variable begin_, end_;
  void (*call_)(void*, long, long) = nullptr;
  void* function_ = nullptr;
  long count_ = 0, chunk_ = 1, loop_ = 0;
  std::atomic<long> next_{0};
  int working_ = 0;
  bool ending_ = false;
};

/// A matrix somewhere in the arena; rows are `stride` apart.
struct matrix {
  float* data = nullptr;
  long rows = 0, cols = 0, stride = 0;

  float* row(long r) const { return data + r * stride; }
  long size() const { return rows * cols; }
};

/// Zeros in a matrix without gaps.
inline void clear(matrix const& m) {
  std::memset(m.data, 0, static_cast<std::size_t>(m.size()) * sizeof(float));
}

/// Everything the engine asks of its surroundings.
struct runtime {
  arena memory;
  thread_pool threads;

  matrix make_matrix(long rows, long cols) {
    return {memory.take<float>(rows * cols), rows, cols, cols};
  }
  matrix make_like(matrix const& m) { return make_matrix(m.rows, m.cols); }
};

/// c = alpha op(a) op(b) + beta c, where op turns what its flag says. With beta 0 c is not read.
/// Rows of c are spread over the threads; each is summed in one order.
inline void product(runtime& host, bool turn_a, bool turn_b, float alpha, matrix a, matrix b,
                    float beta, matrix c) {
  long const depth = turn_a ? a.rows : a.cols;
  host.threads.run(c.rows, 8, [&](long begin, long end) {
    for (long r = begin; r < end; ++r) {
      float* const out = c.row(r);
      for (long j = 0; j < c.cols; ++j) out[j] = beta == 0 ? 0 : beta * out[j];
      for (long k = 0; k < depth && !turn_b; ++k) {
        float const scale = alpha * (turn_a ? a.row(k)[r] : a.row(r)[k]);
        float const* const in = b.row(k);
        for (long j = 0; j < c.cols; ++j) out[j] += scale * in[j];
      }
      for (long j = 0; j < c.cols && turn_b; ++j) {
        float const* const in = b.row(j);
        float sums[8] = {};
        long k = 0;
        for (; k + 8 <= depth && !turn_a; k += 8) {
          for (long i = 0; i < 8; ++i) sums[i] += a.row(r)[k + i] * in[k + i];
        }
        for (; k < depth; ++k) sums[0] += (turn_a ? a.row(k)[r] : a.row(r)[k]) * in[k];
        for (long i = 1; i < 8; ++i) sums[0] += sums[i];
        out[j] += alpha * sums[0];
      }
    }
  });
}

}  // namespace engine
