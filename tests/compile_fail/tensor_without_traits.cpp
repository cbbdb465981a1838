// expect: lamina: this type is no tensor with memory of its own
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/foreign.hpp"

struct blob {
  float* numbers;
  lamina::index_t height, width;
};

#ifdef LAMINA_FIXED
template <>
struct lamina::tensor_traits<blob> {
  static float* data(blob& b) { return b.numbers; }
  static index_t rank(blob const&) { return 2; }
  static index_t extent(blob const& b, index_t axis) { return axis == 0 ? b.height : b.width; }
  static index_t stride(blob const& b, index_t axis) { return axis == 0 ? b.width : 1; }
};
#endif

lamina::index_t rows(blob& b) { return lamina::make_matrix_view(b).rows; }
