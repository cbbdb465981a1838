// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device played by the host: memory that nobody may touch but bodies and copies, and work that
// waits on its stream until somebody synchronizes. Proves device algorithms without a GPU.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#include "lamina/backend/device_vector.hpp"
#include "lamina/backend/gemm.hpp"
#include "tests/support/threaded_lanes.hpp"

namespace lamina::testing {

/// Executor that works every row with `lane_count` threads that can keep `slots` chunks each; with
/// 0 lanes, by one lane without memory. A body that shares memory gets what it asks for.
struct simulated_rows {
  index_t lane_count = 0;
  index_t slots = 0;

  template <row_body Body>
  void run(index_t rows, Body const& body) const {
    if constexpr (sharing_body<Body>) {
      index_t const lanes = lane_count > 0 ? lane_count : 1, row = lanes * slot_bytes;
      keeping_rows{lanes, (body.shared_bytes() + row - 1) / row}.run(rows, body);
    } else if (lane_count == 0) {
      host_rows<>{}.run(rows, body);
    } else if (slots == 0) {
      threaded_rows{lane_count}.run(rows, body);
    } else {
      keeping_rows{lane_count, slots}.run(rows, body);
    }
  }
};

/// Work in the order it was asked for, done by synchronize() alone; and device memory, which can be
/// read and written only while work is being done.
class simulated_stream {
 public:
  simulated_stream() = default;
  simulated_stream(simulated_stream const&) = delete;
  ~simulated_stream() {
    synchronize();
    for (region& r : regions_) munmap(r.data, r.size);
  }

  void ask(std::function<void()> work) { work_.push_back(std::move(work)); }
  std::size_t pending() const { return work_.size(); }
  void synchronize() {
    std::vector<std::function<void()>> work;
    work.swap(work_);
    if (work.empty()) return;
    protect(PROT_READ | PROT_WRITE);
    for (auto const& item : work) item();
    protect(PROT_NONE);
  }

  void* allocate(std::size_t bytes) {
    std::size_t const page = 4096, size = (bytes + page) / page * page;
    if (size > limit_ - allocated_) {
      throw std::runtime_error("simulated device: out of memory");
    }
    void* const data =
        mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) throw std::runtime_error("simulated device: mmap failed");
    regions_.push_back({data, size});
    allocated_ += size;
    return data;
  }
  /// In order: work asked for before still finds the memory, work asked for afterwards crashes.
  void release(void* data) {
    ask([this, data] {
      for (auto r = regions_.begin(); r != regions_.end(); ++r) {
        if (r->data != data) continue;
        munmap(r->data, r->size);
        allocated_ -= r->size;
        regions_.erase(r);
        return;
      }
    });
  }
  bool holds(void const* p) const {
    auto const* const byte = static_cast<unsigned char const*>(p);
    for (region const& r : regions_) {
      auto const* const first = static_cast<unsigned char const*>(r.data);
      if (byte >= first && byte < first + r.size) return true;
    }
    return false;
  }
  std::size_t allocated() const { return allocated_; }
  void set_limit(std::size_t bytes) { limit_ = bytes; }

 private:
  struct region {
    void* data;
    std::size_t size;
  };
  void protect(int rights) {
    for (region const& r : regions_) mprotect(r.data, r.size, rights);
  }

  std::vector<std::function<void()>> work_;
  std::vector<region> regions_;
  std::size_t allocated_ = 0;
  std::size_t limit_ = std::size_t{1} << 32;
};

/// Exactly what the device_backend concept asks for. LaneCount and SlotCount as simulated_rows.
template <real T, index_t LaneCount = 0, index_t SlotCount = 0>
class simulated_device {
 public:
  using scalar_type = T;
  class bytes_type {
   public:
    bytes_type(std::shared_ptr<simulated_stream> stream, std::size_t size)
        : stream_(std::move(stream)), data_(stream_->allocate(size)) {}
    bytes_type(bytes_type&& other) noexcept
        : stream_(std::move(other.stream_)), data_(std::exchange(other.data_, nullptr)) {}
    bytes_type& operator=(bytes_type&& other) noexcept {
      std::swap(stream_, other.stream_);
      std::swap(data_, other.data_);
      return *this;
    }
    ~bytes_type() {
      if (data_ != nullptr) stream_->release(data_);
    }
    void* data() const { return data_; }

   private:
    std::shared_ptr<simulated_stream> stream_;
    void* data_;
  };
  struct matrix_type {
    index_t rows, cols;
    bytes_type bytes;
  };
  // Rows wait on the stream with a copy of the body, as a launch takes its arguments by value.
  struct executor_type {
    simulated_stream* stream;
    template <row_body Body>
    void run(index_t rows, Body const& body) const {
      stream->ask([rows, body] { simulated_rows{LaneCount, SlotCount}.run(rows, body); });
    }
  };

  std::shared_ptr<simulated_stream> work = std::make_shared<simulated_stream>();

  simulated_stream& stream() const { return *work; }
  void synchronize() const { work->synchronize(); }
  bytes_type make_bytes(std::size_t n) const { return {work, n}; }
  matrix_type make_matrix(index_t rows, index_t cols) const {
    return {rows, cols, make_bytes(static_cast<std::size_t>(rows * cols) * sizeof(T))};
  }
  static matrix_view<T> view(matrix_type& m) {
    return {static_cast<T*>(m.bytes.data()), m.rows, m.cols};
  }
  static matrix_view<T const> view(matrix_type const& m) {
    return {static_cast<T const*>(m.bytes.data()), m.rows, m.cols};
  }
  executor_type executor() const { return {work.get()}; }
  bool reaches(void const* p) const { return work->holds(p); }
  void copy(void* to, void const* from, std::size_t n) const {
    work->ask([to, from, n] { std::memcpy(to, from, n); });
  }
  void gemm(transpose ta, transpose tb, T alpha, matrix_view<T const> a, matrix_view<T const> b,
            T beta, matrix_view<T> c) const {
    auto const g = make_gemm_arguments<T>(ta, tb, alpha, a, b, beta, c);
    work->ask([g] {
      for (index_t i = 0; i < g.rows; ++i) {
        for (index_t j = 0; j < g.cols; ++j) {
          double sum = 0;
          for (index_t k = 0; k < g.depth; ++k) {
            bool const flip_a = g.transpose_a == transpose::yes;
            bool const flip_b = g.transpose_b == transpose::yes;
            sum += static_cast<double>(flip_a ? g.a[k * g.a_stride + i] : g.a[i * g.a_stride + k]) *
                   static_cast<double>(flip_b ? g.b[j * g.b_stride + k] : g.b[k * g.b_stride + j]);
          }
          T& c_ij = g.c[i * g.c_stride + j];
          double const old = g.beta == T(0) ? 0.0 : static_cast<double>(g.beta * c_ij);
          c_ij = static_cast<T>(static_cast<double>(g.alpha) * sum + old);
        }
      }
    });
  }
};
static_assert(check_device_backend<simulated_device<float>>());
static_assert(check_device_backend<simulated_device<double, 33, 2>>());

}  // namespace lamina::testing
