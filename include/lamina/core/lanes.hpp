// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Row bodies and what runs them: a body is written once and called as body(lanes, row); the lane
// group says how many threads work the row together, the executor says in which order rows run.
#pragma once

#include <concepts>
#include <type_traits>

#include "lamina/config.hpp"

LAMINA_NAMESPACE_BEGIN

/// Threads that work one row together. Lane i of n visits elements i, i + n, i + 2n ...; the
/// collectives return the same value to every lane and must be reached by all of them.
template <class L>
concept lane_group = std::is_trivially_copyable_v<L> && requires(L const lanes, double x) {
  { lanes.lane() } -> std::convertible_to<index_t>;
  { lanes.count() } -> std::convertible_to<index_t>;
  { lanes.sum(x) } -> std::same_as<double>;
  { lanes.max(x) } -> std::same_as<double>;
};

namespace archetype {
/// What two lanes' values of any trivially copyable type become.
struct combine {
  template <class T>
  LAMINA_HOST_DEVICE T operator()(T const& a, T const&) const {
    return a;
  }
};
}  // namespace archetype

/// Lanes of whole blocks. They have memory of their own on the chip for what they read of a row, so
/// that a second pass need not read it again: slot_count() slots of slot_bytes bytes, aligned to as
/// many, seen by one lane. fetch(slot, from) asks for the 16 bytes at `from`, aligned as well, and
/// does not wait; await(n) waits for all that the lane asked for but the last n. And they fold what
/// takes more than a sum: fold(value, combine) is the same value in every lane, made in an order
/// that depends on nothing but the number of lanes.
template <class L>
concept keeping_lane_group = lane_group<L> &&
    requires(L const lanes, index_t slot, void const* from, archetype::combine combine) {
  { lanes.slot_count() } -> std::convertible_to<index_t>;
  { lanes.slot(slot) } -> std::same_as<void*>;
  lanes.fetch(slot, from);
  lanes.await(slot);
  { lanes.fold(1.0, combine) } -> std::same_as<double>;
};
inline constexpr index_t slot_bytes = 16;

/// Lanes of whole blocks that work in one piece of memory on the chip: shared() has the bytes that
/// the body's shared_bytes() asks for, aligned to slot_bytes; sync(), which all lanes have to
/// reach, lets each see what the others wrote. A body has either slots or shared memory.
template <class L>
concept sharing_lane_group = lane_group<L> && requires(L const lanes) {
  { lanes.shared() } -> std::same_as<void*>;
  lanes.sync();
};
/// A body that works in shared memory.
template <class B>
concept sharing_body = requires(B const& body) {
  { body.shared_bytes() } -> std::convertible_to<index_t>;
};

/// How many threads of a device suit a row of a body. Hosts do not ask.
enum class row_schedule : unsigned char {
  thread,   ///< one: short rows, no collectives
  warp,     ///< 32: rows of some hundred elements
  block,    ///< some hundred, on one multiprocessor: rows of thousands
  cluster,  ///< blocks of several multiprocessors: rows that one alone cannot keep
};

/// One thread a row: every collective is the identity and a body becomes the plain loop.
struct single_lane {
  LAMINA_HOST_DEVICE static constexpr index_t lane() noexcept { return 0; }
  LAMINA_HOST_DEVICE static constexpr index_t count() noexcept { return 1; }
  template <class T>
  LAMINA_HOST_DEVICE static constexpr T sum(T value) noexcept {
    return value;
  }
  template <class T>
  LAMINA_HOST_DEVICE static constexpr T max(T value) noexcept {
    return value;
  }
};

/// A trivially copyable object, so that it can be a kernel argument, callable as (lanes, row).
template <class B>
concept row_body = std::is_trivially_copyable_v<B> &&
    requires(B const& body, single_lane lanes, index_t row) {
  body(lanes, row);
};

/// What Body::schedule says; a warp for a body that says nothing.
template <class Body>
constexpr row_schedule schedule_of() {
  if constexpr (requires { Body::schedule; }) {
    return Body::schedule;
  } else {
    return row_schedule::warp;
  }
}

namespace archetype {
/// The least a row body can be; executors are checked against it.
struct row_body {
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes, index_t) const {}
};
}  // namespace archetype

/// Runs body(lanes, row) for every row in [0, rows). Rows are independent: any order, any thread.
template <class E>
concept row_executor = requires(E const& executor, index_t rows, archetype::row_body body) {
  executor.run(rows, body);
};

/// Calls f(begin, end) on ranges that cover [0, count) once each. `grain` is the least number of
/// items worth a range of their own. A host passes its own pool as a type that models this.
template <class P>
concept parallel_for = std::copy_constructible<P> &&
    requires(P const& p, index_t count, index_t grain, void (*f)(index_t, index_t)) {
  p(count, grain, f);
};

/// The default: one range, on the calling thread.
struct serial_for {
  template <class F>
  void operator()(index_t count, index_t /*grain*/, F&& f) const {
    if (count > 0) f(index_t{0}, count);
  }
};

/// Rows on the host: one lane a row, ranges of rows through the `ParallelFor` hook.
template <parallel_for ParallelFor = serial_for>
struct host_rows {
  ParallelFor parallel{};
  /// Least number of rows that is worth handing to another thread.
  index_t grain = 1;

  template <row_body Body>
  void run(index_t rows, Body const& body) const {
    parallel(rows, grain, [&body](index_t begin, index_t end) {
      for (index_t row = begin; row < end; ++row) body(single_lane{}, row);
    });
  }
};

static_assert(row_executor<host_rows<>>);

LAMINA_NAMESPACE_END
