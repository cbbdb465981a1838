// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Warps played by host threads that do what the instructions of tensor cores are documented to do,
// element by element: runs the text that chooses what a lane of a warp reads, holds and multiplies.
#pragma once

#include <cstring>

#include "lamina/core/row_chunks.hpp"
#include "lamina/core/warp_tile_sums.hpp"
#include "tests/support/simulated_device.hpp"

namespace lamina::testing {

/// What the 32 lanes of a warp show each other.
struct warp_team {
  std::barrier<> barrier{32};
  std::uint16_t const* rows[32];
  float values[32];
  std::uint32_t a[32][4], b[32][2];
};

/// A multiplying_warp: the calling thread is one of its lanes.
struct emulated_warp {
  struct place {
    warp_team* team;
    int index;  // in the block
  };
  static place& own() {
    thread_local place value{};
    return value;
  }
  static int warp() { return own().index / 32; }
  static int lane() { return own().index % 32; }

  static float exchange(float value, int mask) {
    warp_team& w = *own().team;
    w.values[lane()] = value;
    w.barrier.arrive_and_wait();
    float const other = w.values[lane() ^ mask];
    w.barrier.arrive_and_wait();
    return other;
  }
  static four_matrices load_matrices(void const* row) {
    return load(row, [](warp_team const& w, int matrix, int j) {
      return w.rows[8 * matrix + lane() / 4][2 * (lane() % 4) + j];
    });
  }
  static four_matrices load_transposed_matrices(void const* row) {
    return load(row, [](warp_team const& w, int matrix, int j) {
      return w.rows[8 * matrix + 2 * (lane() % 4) + j][lane() / 4];
    });
  }
  // Element [r, k] of a is in the quarter that r / 8 and k / 8 say, with lane 4 (r % 8) + k % 8 /
  // 2; [k, c] of b in the half that k / 8 says, with lane 4 c + k % 8 / 2.
  template <storage_scalar T>
  static void multiply(float (&sums)[4], four_matrices const& a, std::uint32_t upper,
                       std::uint32_t lower) {
    warp_team& w = *own().team;
    std::memcpy(w.a[lane()], a.pairs, sizeof a.pairs);
    w.b[lane()][0] = upper;
    w.b[lane()][1] = lower;
    w.barrier.arrive_and_wait();
    for (int i = 0; i < 4; ++i) {
      int const r = lane() / 4 + 8 * (i / 2), c = 2 * (lane() % 4) + i % 2;
      for (int k = 0; k < 16; ++k) {
        std::uint32_t const x = w.a[4 * (r % 8) + k % 8 / 2][r / 8 + k / 8 * 2];
        std::uint32_t const y = w.b[4 * c + k % 8 / 2][k / 8];
        sums[i] += half<T>(x, k % 2) * half<T>(y, k % 2);
      }
    }
    w.barrier.arrive_and_wait();
  }

 private:
  template <class Element>
  static four_matrices load(void const* row, Element const& element) {
    warp_team& w = *own().team;
    w.rows[lane()] = static_cast<std::uint16_t const*>(row);
    w.barrier.arrive_and_wait();
    four_matrices m;
    for (int i = 0; i < 4; ++i) {
      m.pairs[i] = std::uint32_t{element(w, i, 0)} | std::uint32_t{element(w, i, 1)} << 16;
    }
    w.barrier.arrive_and_wait();
    return m;
  }
  template <class T>
  static float half(std::uint32_t pair, int upper) {
    T number{};
    number.bits = static_cast<std::uint16_t>(pair >> (16 * upper));
    return number;
  }
};
static_assert(multiplying_warp<emulated_warp>);

/// The lanes of a block of such warps.
struct emulated_lanes : keeping_lanes {
  template <int Rows, int Cols>
  using tile_sums = warp_tile_sums<emulated_warp, Rows, Cols>;
};
static_assert(multiplying_lane_group<emulated_lanes>);

/// Works every row of a body that shares memory with the block of warps that it asks for. What
/// nobody has written to the memory is no number.
struct emulated_rows {
  template <row_body Body>
  void run(index_t rows, Body const& body) const {
    index_t const lanes = Body::lane_count, row = lanes * slot_bytes;
    index_t const slots = (body.shared_bytes() + row - 1) / row;
    std::vector<row_chunk<bf16>> memory(static_cast<std::size_t>(slots * lanes));
    std::memset(static_cast<void*>(memory.data()), 0xff, memory.size() * slot_bytes);
    lane_team team(lanes);
    std::vector<warp_team> warps(static_cast<std::size_t>(lanes / 32));
    std::vector<std::thread> threads;
    for (index_t lane = 0; lane < lanes; ++lane) {
      threads.emplace_back([&, lane] {
        emulated_warp::own() = {&warps[static_cast<std::size_t>(lane / 32)],
                                static_cast<int>(lane)};
        for (index_t r = 0; r < rows; ++r) {
          body(
              emulated_lanes{
                  {{&team, lane}, slots, reinterpret_cast<unsigned char*>(memory.data())}},
              r);
          team.barrier.arrive_and_wait();  // the memory is the next row's only then
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
};

/// Device, but for bodies that ask for a block of warps that multiply.
template <class Device>
struct with_emulated_warps : Device {
  struct executor_type {
    simulated_stream* stream;
    template <row_body Body>
    void run(index_t rows, Body const& body) const {
      if constexpr (requires { Body::lane_count; }) {
        stream->ask([rows, body] { emulated_rows{}.run(rows, body); });
      } else {
        typename Device::executor_type{stream}.run(rows, body);
      }
    }
  };
  executor_type executor() const { return {this->work.get()}; }
};

}  // namespace lamina::testing
