// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "everything.hpp"

lamina::index_t other_stop_layer(int unused_parameter) {
  return lamina::plan_backward(12, lamina::middle_layers(12, 4)).stop_layer();
}

float other_product(float a, float b) { return product(a, b); }
