// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The list of backends that every typed test runs over. It includes all of them, which costs
// compile time; a test that needs one by name includes backends.hpp.
#pragma once

#if defined(LAMINA_TEST_XTENSOR)
#include "lamina/backend/xtensor.hpp"
#endif
#include "tests/support/backends.hpp"

// For TEST_CASE_TEMPLATE.
#if defined(LAMINA_TEST_XTENSOR)
#define LAMINA_TEST_BACKENDS_IN_DOUBLE \
  lamina::eigen_backend<double>, lamina::xtensor_backend<double>
#define LAMINA_TEST_BACKENDS_IN_FLOAT lamina::eigen_backend<float>, lamina::xtensor_backend<float>
#else
#define LAMINA_TEST_BACKENDS_IN_DOUBLE lamina::eigen_backend<double>
#define LAMINA_TEST_BACKENDS_IN_FLOAT lamina::eigen_backend<float>
#endif
#define LAMINA_TEST_BACKENDS                                                         \
  lamina::testing::minimal_backend<float>, lamina::testing::minimal_backend<double>, \
      LAMINA_TEST_BACKENDS_IN_FLOAT, LAMINA_TEST_BACKENDS_IN_DOUBLE
