// expect: lamina: objectives over the rollouts of a group \(conspo\) are not computed on a device
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_device.hpp"
#include "lamina/policy/device_loss.hpp"
#include "lamina/policy/presets.hpp"

void loss(complete_device const& device, lamina::vector_view<float> values,
          lamina::policy_batch<float> const& batch,
          lamina::policy_report<complete_device>& report) {
#ifdef LAMINA_FIXED
  lamina::policy_loss(device, lamina::grpo{}, values, batch, values, report);
#else
  lamina::policy_loss(device, lamina::conspo{}, values, batch, values, report);
#endif
}
