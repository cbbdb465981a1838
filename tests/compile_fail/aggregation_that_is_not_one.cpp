// expect: loss_aggregation
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The fifth policy of an estimator has to give weights.
#include "lamina/policy/presets.hpp"

#ifdef LAMINA_FIXED
using aggregation = lamina::token_mean;
#else
using aggregation = lamina::token_ratio;
#endif
lamina::basic_grpo<aggregation> estimator{};
