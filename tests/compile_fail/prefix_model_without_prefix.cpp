// expect: lamina: a prefix model needs forward_prefix\(batch, layer\) that returns the
// matrix_view<T> SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_model.hpp"

struct my_model : complete_model {
#ifndef LAMINA_FIXED
  void forward_prefix(batch_type const&, lamina::index_t) {}
#else
  lamina::matrix_view<float const> forward_prefix(batch_type const&, lamina::index_t) { return {}; }
#endif
  lamina::matrix_view<float> forward_suffix(batch_type const&, lamina::index_t,
                                            lamina::matrix_view<float const>,
                                            lamina::backward_plan const&) {
    return {};
  }
};

static_assert(lamina::check_prefix_model<my_model>());
