// expect: lamina: train_step on a device leaves its result in a policy_report
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_device.hpp"
#include "complete_model.hpp"
#include "lamina/model/train_step.hpp"
#include "lamina/policy/presets.hpp"

struct my_optimizer {
  void step() {}
};

void step(complete_device const& device, complete_model& model, lamina::backward_plan const& plan,
          lamina::policy_batch<float> const& batch, lamina::policy_outputs<float> const& outputs,
          lamina::policy_report<complete_device>& report, my_optimizer& optimizer) {
#ifdef LAMINA_FIXED
  lamina::train_step(device, model, lamina::grpo{}, plan, {}, batch, outputs, report, optimizer);
#else
  static_cast<void>(report);
  lamina::train_step(device, model, lamina::grpo{}, plan, {}, batch, outputs, optimizer);
#endif
}
