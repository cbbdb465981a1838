// expect: lamina: on a device advantages come from rules that need the rewards of a group alone
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_device.hpp"
#include "lamina/policy/device_advantage.hpp"
#include "lamina/policy/token_advantage.hpp"

void advantages(complete_device const& device, lamina::vector_view<float const> rewards,
                lamina::vector_view<float> values,
                lamina::advantage_report<complete_device>& report) {
#ifdef LAMINA_FIXED
  lamina::compute_advantages(device, lamina::group_relative<>{}, rewards, 8, values, report);
#else
  lamina::compute_advantages(device, lamina::gae<>{}, rewards, 8, values, report);
#endif
}
