// expect: lamina: on a device advantages come from rules that are made of row bodies
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_device.hpp"
#include "lamina/policy/device_advantage.hpp"

// Copies rewards, by the host.
struct host_rule {
  static constexpr bool per_token = false;

  template <lamina::real T>
  lamina::advantage_statistics compute(lamina::reward_batch<T> const& batch,
                                       lamina::vector_view<T> advantages) const {
    for (lamina::index_t i = 0; i < advantages.size; ++i) advantages[i] = batch.rewards[i];
    return {};
  }
};

void advantages(complete_device const& device, lamina::reward_arrays<float> const& batch,
                lamina::vector_view<float> values,
                lamina::advantage_report<complete_device>& report) {
#ifdef LAMINA_FIXED
  lamina::compute_advantages(device, lamina::group_relative<>{}, batch, values, report);
#else
  lamina::compute_advantages(device, host_rule{}, batch, values, report);
#endif
}
