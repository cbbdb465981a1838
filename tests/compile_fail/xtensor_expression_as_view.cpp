// expect: lamina: an xtensor expression has no memory
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/xtensor.hpp"

double first(xt::xtensor<double, 2> const& a) {
#ifdef LAMINA_FIXED
  xt::xtensor<double, 2> const sum = a + a;
#else
  auto const sum = a + a;
#endif
  return lamina::make_matrix_view(sum)(0, 0);
}
