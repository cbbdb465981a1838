// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <lamina/backend/xtensor.hpp>

#include "everything.hpp"

int main() {
  lamina::xtensor_backend<float> const backend;
  auto a = backend.make_matrix(1, 1), b = a, c = a;
  a(0, 0) = 3;
  b(0, 0) = 4;
  backend.gemm(lamina::transpose::no, lamina::transpose::no, 1.f, lamina::make_matrix_view(a),
               lamina::make_matrix_view(b), 0.f, lamina::make_matrix_view(c));
  return c(0, 0) == other_product(3, 4) ? 0 : 1;
}
