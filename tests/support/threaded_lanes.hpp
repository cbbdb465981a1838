// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A lane group played by host threads with a barrier: runs the cooperative logic of a row body
// without a GPU.
#pragma once

#include <barrier>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "lamina/core/lanes.hpp"

namespace lamina::testing {

/// What the lanes of one group share.
struct lane_team {
  explicit lane_team(index_t lane_count)
      : count(lane_count),
        barrier(lane_count),
        slots(static_cast<std::size_t>(lane_count)),
        parcels(slots.size()),
        asked(slots.size()) {}
  struct alignas(16) parcel {
    unsigned char bytes[64];
  };
  index_t count;
  std::barrier<> barrier;
  std::vector<double> slots;
  std::vector<parcel> parcels;
  struct copy {
    void* to;
    void const* from;
  };
  std::vector<std::vector<copy>> asked;  // by each lane, and not waited for yet
};

/// Lane `lane()` of `count()` threads; collectives combine in lane order, as a warp's result does
/// not depend on timing.
struct threaded_lanes {
  lane_team* team;
  index_t index;

  index_t lane() const { return index; }
  index_t count() const { return team->count; }

  template <class T>
  T sum(T value) const {
    return static_cast<T>(
        fold(static_cast<double>(value), [](double a, double b) { return a + b; }));
  }
  template <class T>
  T max(T value) const {
    return static_cast<T>(
        fold(static_cast<double>(value), [](double a, double b) { return a > b ? a : b; }));
  }

 private:
  template <class Combine>
  double fold(double value, Combine combine) const {
    team->slots[static_cast<std::size_t>(index)] = value;
    team->barrier.arrive_and_wait();
    double result = team->slots[0];
    for (std::size_t i = 1; i < team->slots.size(); ++i) result = combine(result, team->slots[i]);
    team->barrier.arrive_and_wait();  // nobody overwrites a slot that somebody still reads
    return result;
  }
};

/// Executor that works every row with `lane_count` threads.
struct threaded_rows {
  index_t lane_count = 7;

  template <row_body Body>
  void run(index_t rows, Body const& body) const {
    lane_team team(lane_count);
    std::vector<std::thread> threads;
    for (index_t lane = 0; lane < lane_count; ++lane) {
      threads.emplace_back([&, lane] {
        for (index_t row = 0; row < rows; ++row) body(threaded_lanes{&team, lane}, row);
      });
    }
    for (auto& thread : threads) thread.join();
  }
};

/// Lanes with memory for what they read, as blocks of threads with shared memory have it.
struct keeping_lanes : threaded_lanes {
  index_t slots;
  unsigned char* memory;

  index_t slot_count() const { return slots; }
  void* slot(index_t k) const { return memory + (k * count() + lane()) * slot_bytes; }
  /// Nothing is there before it is waited for.
  void fetch(index_t k, void const* from) const {
    std::memset(slot(k), 0xff, slot_bytes);
    team->asked[static_cast<std::size_t>(index)].push_back({slot(k), from});
  }
  void await(index_t later) const {
    auto& asked = team->asked[static_cast<std::size_t>(index)];
    while (!asked.empty() && static_cast<index_t>(asked.size()) > later) {
      std::memcpy(asked.front().to, asked.front().from, slot_bytes);
      asked.erase(asked.begin());
    }
  }
  void* shared() const { return memory; }
  void sync() const { team->barrier.arrive_and_wait(); }
  template <class T, class Combine>
  T fold(T value, Combine const& combine) const {
    static_assert(sizeof(T) <= sizeof(lane_team::parcel));
    auto const put = [](lane_team::parcel& to, T const& v) { std::memcpy(&to, &v, sizeof v); };
    auto const get = [](lane_team::parcel const& from) {
      T v;
      std::memcpy(static_cast<void*>(&v), &from, sizeof v);
      return v;
    };
    put(team->parcels[static_cast<std::size_t>(index)], value);
    team->barrier.arrive_and_wait();
    T result = get(team->parcels[0]);
    for (std::size_t i = 1; i < team->parcels.size(); ++i) {
      result = combine(result, get(team->parcels[i]));
    }
    team->barrier.arrive_and_wait();
    return result;
  }
};

/// Executor that works every row with `lane_count` threads that can keep `slots` chunks each.
struct keeping_rows {
  index_t lane_count = 7;
  index_t slots = 2;

  template <row_body Body>
  void run(index_t rows, Body const& body) const {
    std::unique_ptr<unsigned char, void (*)(void*)> const memory(
        static_cast<unsigned char*>(std::aligned_alloc(
            slot_bytes, static_cast<std::size_t>(lane_count * slots * slot_bytes + slot_bytes))),
        std::free);
    lane_team team(lane_count);
    std::vector<std::thread> threads;
    for (index_t lane = 0; lane < lane_count; ++lane) {
      threads.emplace_back([&, lane] {
        for (index_t row = 0; row < rows; ++row) {
          body(keeping_lanes{{&team, lane}, slots, memory.get()}, row);
          team.barrier.arrive_and_wait();  // the memory is the next row's only then
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
};

/// The parallel_for hook over freshly spawned threads, `threads` ranges at most.
struct spawning_for {
  index_t threads = 2;
  template <class F>
  void operator()(index_t count, index_t grain, F&& f) const {
    index_t const useful = grain > 0 ? (count + grain - 1) / grain : count;
    index_t const ranges = useful < threads ? useful : threads;
    std::vector<std::thread> pool;
    for (index_t r = 0; r < ranges; ++r) {
      pool.emplace_back([&, r] { f(count * r / ranges, count * (r + 1) / ranges); });
    }
    for (auto& thread : pool) thread.join();
  }
};

static_assert(lane_group<threaded_lanes>);
static_assert(keeping_lane_group<keeping_lanes>);
static_assert(sharing_lane_group<keeping_lanes>);
static_assert(row_executor<threaded_rows>);
static_assert(row_executor<keeping_rows>);
static_assert(parallel_for<spawning_for>);

}  // namespace lamina::testing
