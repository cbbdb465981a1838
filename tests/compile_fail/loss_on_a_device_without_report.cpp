// expect: lamina: on a device policy_loss takes a policy_report as well and returns nothing
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_device.hpp"
#include "lamina/policy/device_loss.hpp"
#include "lamina/policy/presets.hpp"

void loss(complete_device const& device, lamina::matrix_view<float> logits,
          lamina::policy_batch<float> const& batch, lamina::policy_outputs<float> const& outputs,
          lamina::policy_report<complete_device>& report) {
#ifdef LAMINA_FIXED
  lamina::policy_loss(device, lamina::grpo{}, logits, batch, outputs, report);
#else
  static_cast<void>(report);
  lamina::policy_loss(device, lamina::grpo{}, logits, batch, outputs);
#endif
}
