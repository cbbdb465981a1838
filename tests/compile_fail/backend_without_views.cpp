// expect: lamina: a backend needs static view\(matrix\) that returns matrix_view<scalar_type>
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_backend.hpp"

struct my_backend : complete_backend {
#ifndef LAMINA_FIXED
  static float* view(matrix_type const&);
#endif
};

static_assert(lamina::check_backend<my_backend>());
