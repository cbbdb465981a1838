// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The backends tests are made with, and the tolerance of each scalar.
#pragma once

#include "lamina/backend/eigen.hpp"
#include "tests/support/minimal_backend.hpp"
#include "tests/support/threaded_lanes.hpp"

namespace lamina::testing {

/// An Eigen backend whose rows are worked by `Count` cooperating host threads.
template <real T, index_t Count>
struct threaded_backend : eigen_backend<T> {
  threaded_rows executor() const { return {Count}; }
};

static_assert(check_backend<threaded_backend<double, 7>>());

/// Relative error allowed in comparisons with a double-precision reference.
template <class T>
inline constexpr double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-9;

}  // namespace lamina::testing
