// expect: could not convert|no known conversion
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <vector>

#include "lamina/core/view.hpp"

#ifdef LAMINA_FIXED
using reward = float;
#else
using reward = double;
#endif

float mean(lamina::vector_view<float const> rewards);

float mean_reward(std::vector<reward> const& rewards) { return mean(rewards); }
