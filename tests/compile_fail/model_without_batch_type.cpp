// expect: lamina: a trainable model needs batch_type
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_model.hpp"

struct my_model : complete_model {
#ifndef LAMINA_FIXED
 private:
  using batch_type = void;
#endif
};

static_assert(lamina::check_trainable_model<my_model>());
