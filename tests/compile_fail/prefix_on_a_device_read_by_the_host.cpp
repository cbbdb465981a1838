// expect: lamina: fingerprint_guard reads weights on the host; a model on a device needs
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_device.hpp"
#include "complete_model.hpp"
#include "lamina/model/prefix_cache.hpp"

struct my_model : complete_model {
  lamina::matrix_view<float const> forward_prefix(batch_type const&, lamina::index_t) { return {}; }
  lamina::matrix_view<float> forward_suffix(batch_type const&, lamina::index_t,
                                            lamina::matrix_view<float const>,
                                            lamina::backward_plan const&) {
    return {};
  }
};

void cache(complete_device const& device, my_model& model, lamina::backward_plan const& plan) {
#ifdef LAMINA_FIXED
  lamina::prefix_cache cache(model, plan, lamina::in_device_memory(device),
                             lamina::device_fingerprint_guard(device));
#else
  lamina::prefix_cache cache(model, plan, lamina::in_device_memory(device));
#endif
  cache.fill(model, {});
}
