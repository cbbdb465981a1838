// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Estimators by their names in the field.
#pragma once

#include "lamina/policy/estimator.hpp"

LAMINA_NAMESPACE_BEGIN

/// GRPO: rewards against mean and standard deviation of their group, token ratios, clipped
/// surrogate, k3 penalty in the loss (off until kl.coefficient is set), mean over the tokens of a
/// sequence and then over sequences. Another aggregation, as DAPO's token_mean, is the parameter.
/// Source: Shao et al. 2024 (arXiv:2402.03300), eq. 3 and 4.
template <loss_aggregation Aggregation = sequence_mean_token_mean>
using basic_grpo = policy_gradient<group_relative<by_group_std>, token_ratio, ppo_clip,
                                   kl_penalty<kl_k3>, Aggregation>;
using grpo = basic_grpo<>;

/// Dr. GRPO: no division by the group's standard deviation, and one constant length for every
/// sequence, so that neither easy prompts nor short answers weigh more. Set aggregation.length.
/// Source: Liu et al. 2025 (arXiv:2503.20783), section 3.2.
using dr_grpo = policy_gradient<group_relative<no_scale>, token_ratio, ppo_clip, kl_penalty<kl_k3>,
                                constant_length>;

static_assert(check_estimator<grpo>() && check_estimator<dr_grpo>());

LAMINA_NAMESPACE_END
