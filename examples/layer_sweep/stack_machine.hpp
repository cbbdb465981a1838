// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stack machine small enough to be verified by hand: what the programs of task "code" run on.
#pragma once

#include <array>
#include <cstddef>

namespace layer_sweep {

/// The operations. add, subtract and multiply replace the two topmost values `a b` (b on top) by
/// a op b; duplicate copies the top, swap exchanges the two topmost values, increment adds one.
enum class operation { add, subtract, multiply, duplicate, swap, increment };

inline constexpr std::array<operation, 6> all_operations{operation::add,      operation::subtract,
                                                         operation::multiply, operation::duplicate,
                                                         operation::swap,     operation::increment};

/// At most six values, each in 0..99; arithmetic is modulo 100.
class stack_machine {
 public:
  static constexpr std::size_t capacity = 6;
  static constexpr int modulus = 100;

  /// Starts with the stack [x, y], y on top.
  constexpr stack_machine(int x, int y) : values_{x, y}, size_(2) {}

  constexpr int top() const { return values_[size_ - 1]; }
  constexpr std::size_t size() const { return size_; }

  /// Whether the stack has the values and the room the operation needs.
  constexpr bool legal(operation op) const {
    switch (op) {
      case operation::duplicate: return size_ < capacity;
      case operation::increment: return true;
      default: return size_ >= 2;
    }
  }

  /// Applies the operation; an illegal one changes nothing and returns false.
  constexpr bool apply(operation op) {
    if (!legal(op)) return false;
    int const b = values_[size_ - 1];
    switch (op) {
      case operation::add: reduce(below_top() + b); break;
      case operation::subtract: reduce(below_top() - b + modulus); break;
      case operation::multiply: reduce(below_top() * b); break;
      case operation::duplicate: values_[size_++] = b; break;
      case operation::swap:
        values_[size_ - 1] = below_top();
        values_[size_ - 2] = b;
        break;
      case operation::increment: values_[size_ - 1] = (b + 1) % modulus; break;
    }
    return true;
  }

 private:
  constexpr int below_top() const { return values_[size_ - 2]; }
  constexpr void reduce(int value) {
    --size_;
    values_[size_ - 1] = value % modulus;
  }

  std::array<int, capacity> values_{};
  std::size_t size_;
};

/// Whether `target` lies on top of the stack [x, y] at once or after a single operation.
constexpr bool reachable_in_one(int x, int y, int target) {
  if (y == target) return true;
  for (operation const op : all_operations) {
    stack_machine machine(x, y);
    if (machine.apply(op) && machine.top() == target) return true;
  }
  return false;
}

}  // namespace layer_sweep
