// expect: and backward\(matrix_view<T const>, plan\)
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_model.hpp"

struct my_model : complete_model {
#ifndef LAMINA_FIXED
  void backward(float const*);
#endif
};

static_assert(lamina::check_trainable_model<my_model>());
