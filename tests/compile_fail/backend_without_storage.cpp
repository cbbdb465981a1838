// expect: lamina: a backend needs a movable matrix_type and make_matrix
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_backend.hpp"

struct my_backend : complete_backend {
#ifndef LAMINA_FIXED
  float* make_matrix(int, int) const;
#endif
};

static_assert(lamina::check_backend<my_backend>());
