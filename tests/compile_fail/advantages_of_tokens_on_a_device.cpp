// expect: lamina: on a device advantages come from rules that are made of row bodies
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_device.hpp"
#include "lamina/policy/device_advantage.hpp"
#include "lamina/policy/optimal_token_baseline.hpp"
#include "lamina/policy/token_advantage.hpp"

void advantages(complete_device const& device, lamina::reward_arrays<float> const& batch,
                lamina::vector_view<float> values,
                lamina::advantage_report<complete_device>& report) {
#ifdef LAMINA_FIXED
  lamina::compute_advantages(device, lamina::gae<>{}, batch, values, report);
#else
  lamina::compute_advantages(device, lamina::optimal_token_baseline{}, batch, values, report);
#endif
}
