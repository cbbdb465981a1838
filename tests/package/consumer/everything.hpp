// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Everything lamina offers, as a host includes it. A single header comes without backends.
#pragma once

#include <lamina/lamina.hpp>
#if __has_include(<lamina/backend/eigen.hpp>)
#include <lamina/backend/eigen.hpp>
#endif

/// What main.cpp computes too, seen from the other translation unit.
lamina::index_t other_stop_layer(int unused_parameter);
float other_product(float a, float b);

/// One element of a row body's output: a b.
struct product_body {
  float a, b;
  lamina::vector_view<float> out;
  template <lamina::lane_group Lanes>
  void operator()(Lanes, lamina::index_t row) const {
    out[row] = a * b;
  }
};

inline float product(float a, float b) {
  float result = 0;
#if __has_include(<lamina/backend/eigen.hpp>)
  lamina::eigen_backend<float> const backend;
  backend.gemm(lamina::transpose::no, lamina::transpose::no, 1.f, {&a, 1, 1}, {&b, 1, 1}, 0.f,
               {&result, 1, 1});
#else
  lamina::host_rows<>{}.run(1, product_body{a, b, {&result, 1}});
#endif
  return result;
}
