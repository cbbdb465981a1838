// expect: throw_selection_error
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/backward_plan.hpp"

#ifdef LAMINA_FIXED
constexpr lamina::index_t layer = 27;
#else
constexpr lamina::index_t layer = 28;
#endif

constexpr auto plan = lamina::plan_backward(28, lamina::layer_set{}.insert(layer));
static_assert(plan.stop_layer() == layer);
