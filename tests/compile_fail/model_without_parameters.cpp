// expect: lamina: a model needs parameters\(layer\) that returns a range of parameter_view<T>
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_model.hpp"

struct my_model : complete_model {
#ifndef LAMINA_FIXED
  std::vector<float> parameters(lamina::index_t);
#endif
};

static_assert(lamina::check_trainable_model<my_model>());
