// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The world of task "agent": a 4 x 4 grid with one wall, a key to fetch and a goal to reach.
#pragma once

#include <array>
#include <cstddef>

namespace layer_sweep {

enum class move { up, down, left, right };

inline constexpr std::array<move, 4> all_moves{move::up, move::down, move::left, move::right};

/// Cells are 0..15, row by row from the top; cell 5 is the wall.
struct grid {
  static constexpr int side = 4;
  static constexpr int cell_count = side * side;
  static constexpr int wall = 5;

  /// The cell one move leads to: the same cell if the move runs into the wall or the edge.
  static constexpr int after(int cell, move direction) {
    int row = cell / side, column = cell % side;
    switch (direction) {
      case move::up: --row; break;
      case move::down: ++row; break;
      case move::left: --column; break;
      case move::right: ++column; break;
    }
    if (row < 0 || row >= side || column < 0 || column >= side) return cell;
    int const next = row * side + column;
    return next == wall ? cell : next;
  }

  /// Least number of moves between two free cells.
  static constexpr int distance(int from, int to);
};

namespace detail {

using distance_table = std::array<std::array<int, grid::cell_count>, grid::cell_count>;

constexpr distance_table make_distances() {
  distance_table table{};
  for (int to = 0; to < grid::cell_count; ++to) {
    auto& column = table[static_cast<std::size_t>(to)];
    for (int& entry : column) entry = grid::cell_count;
    column[static_cast<std::size_t>(to)] = 0;
    // Relaxing every cell as often as there are cells reaches the fixed point.
    for (int round = 0; round < grid::cell_count; ++round) {
      for (int cell = 0; cell < grid::cell_count; ++cell) {
        for (move const direction : all_moves) {
          int const through = column[static_cast<std::size_t>(grid::after(cell, direction))] + 1;
          int& entry = column[static_cast<std::size_t>(cell)];
          if (through < entry) entry = through;
        }
      }
    }
  }
  return table;
}

inline constexpr distance_table distances = make_distances();

}  // namespace detail

constexpr int grid::distance(int from, int to) {
  return detail::distances[static_cast<std::size_t>(to)][static_cast<std::size_t>(from)];
}

}  // namespace layer_sweep
