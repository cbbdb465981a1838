// expect: throw_selection_error
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/backward_plan.hpp"

#ifdef LAMINA_FIXED
constexpr bool head = true;
#else
constexpr bool head = false;
#endif

constexpr auto plan = lamina::plan_backward(28, lamina::layer_set{}, {.head = head});
static_assert(plan.stop_layer() == 28);
