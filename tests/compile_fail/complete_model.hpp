// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A trainable model with all that is asked for; each mistake hides one member of it.
#pragma once

#include <vector>

#include "lamina/model/transformer.hpp"

struct complete_model {
  struct batch_type {};

  lamina::index_t layer_count() const { return 1; }
  std::vector<lamina::parameter_view<float>> parameters(lamina::index_t) { return {}; }
  lamina::matrix_view<float> forward(batch_type const&, lamina::backward_plan const&) { return {}; }
  void backward(lamina::matrix_view<float const>, lamina::backward_plan const&) {}
};
