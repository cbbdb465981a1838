// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The number that stands for several measurements.
#pragma once

#include <algorithm>
#include <vector>

namespace lamina::benchmarks {

inline double median(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace lamina::benchmarks
