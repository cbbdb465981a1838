// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "everything.hpp"

int main() {
  constexpr auto plan = lamina::plan_backward(12, lamina::middle_layers(12, 4));
  bool refused = false;
  try {
    lamina::plan_backward(12, lamina::layer_set{}.insert(12));
  } catch (lamina::selection_error const&) {
    refused = true;
  }
  bool const agree = plan.stop_layer() == 4 && other_stop_layer(0) == 4 && product(3, 4) == 12 &&
                     other_product(3, 4) == 12;
  return agree && refused ? 0 : 1;
}
