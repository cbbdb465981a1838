// expect: lamina: a prefix model needs forward_suffix\(batch, layer, matrix_view<T const> stream
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_model.hpp"

struct my_model : complete_model {
  lamina::matrix_view<float const> forward_prefix(batch_type const&, lamina::index_t) { return {}; }
#ifdef LAMINA_FIXED
  lamina::matrix_view<float> forward_suffix(batch_type const&, lamina::index_t,
                                            lamina::matrix_view<float const>,
                                            lamina::backward_plan const&) {
    return {};
  }
#endif
};

static_assert(lamina::check_prefix_model<my_model>());
