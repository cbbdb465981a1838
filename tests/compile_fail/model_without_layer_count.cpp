// expect: lamina: a model needs layer_count\(\) const that returns index_t
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_model.hpp"

struct my_model : complete_model {
#ifndef LAMINA_FIXED
  void layer_count() const;
#endif
};

static_assert(lamina::check_trainable_model<my_model>());
