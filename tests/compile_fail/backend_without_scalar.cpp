// expect: lamina: a backend needs scalar_type, float or double
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_backend.hpp"

struct my_backend : complete_backend {
#ifndef LAMINA_FIXED
  using scalar_type = int;
#endif
};

static_assert(lamina::check_backend<my_backend>());
