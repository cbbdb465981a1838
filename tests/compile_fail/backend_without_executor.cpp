// expect: lamina: a backend needs executor\(\) const that returns a row_executor
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_backend.hpp"

struct my_backend : complete_backend {
#ifndef LAMINA_FIXED
  void executor() const;
#endif
};

static_assert(lamina::check_backend<my_backend>());
