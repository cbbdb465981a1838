// expect: selection_source::fail|function .fail
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/selector.hpp"

#ifdef LAMINA_FIXED
constexpr auto layers = lamina::middle_layers(28, 5);
static_assert(layers.lowest() == 11 && layers.highest() == 15);
#else
constexpr auto layers = lamina::middle_layers(28, 29);
#endif
