// expect: lamina: a trainable model needs forward\(batch, plan\) that returns matrix_view<T>
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_model.hpp"

struct my_model : complete_model {
#ifndef LAMINA_FIXED
  void forward(batch_type const&, lamina::backward_plan const&);
#endif
};

static_assert(lamina::check_trainable_model<my_model>());
