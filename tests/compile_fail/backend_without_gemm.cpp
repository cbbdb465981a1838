// expect: lamina: a backend needs gemm\(transpose, transpose, alpha, a, b, beta, c\) const
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_backend.hpp"

struct my_backend : complete_backend {
#ifndef LAMINA_FIXED
  void gemm(float*, float*, float*) const;
#endif
};

static_assert(lamina::check_backend<my_backend>());
