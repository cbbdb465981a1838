// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Code of docs/tensors.md.
#include <doctest/doctest.h>

#include <utility>
#include <vector>

#include "lamina/backend/dlpack.hpp"
#include "lamina/backend/eigen.hpp"
#if defined(LAMINA_TEST_XTENSOR)
#include "lamina/backend/xtensor.hpp"
#endif

// [traits]
struct engine_tensor {
  double* numbers;
  int height, width;
};

template <>
struct lamina::tensor_traits<engine_tensor> {
  static double* data(engine_tensor const& t) { return t.numbers; }
  static index_t rank(engine_tensor const&) { return 2; }
  static index_t extent(engine_tensor const& t, index_t axis) {
    return axis == 0 ? t.height : t.width;
  }
  static index_t stride(engine_tensor const& t, index_t axis) { return axis == 0 ? t.width : 1; }
};
// [/traits]

TEST_CASE("pointers, spans, matrices") {
  std::vector<float> memory(4 * 3 * 16);
  float* const pointer = memory.data();
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> eigen_matrix(4, 10);
  std::vector<double> numbers(6);
  engine_tensor tensor{numbers.data(), 2, 3};

  // [views]
  // [4, 3, 10] with rows 16 elements apart: 12 rows of 10.
  auto const logits = lamina::make_matrix_view(pointer, {4, 3, 10}, {48, 16, 1});
  auto const packed = lamina::make_matrix_view(memory, {12, 16});  // no gaps; the size is checked
  auto const middle = lamina::make_matrix_view(eigen_matrix.middleCols(2, 5));
  auto const own = lamina::make_matrix_view(tensor);
  // [/views]

  CHECK(logits.rows == 12);
  CHECK(logits.stride == 16);
  CHECK(packed.cols == 16);
  CHECK(middle.cols == 5);
  CHECK(middle.stride == 10);
  CHECK(own.rows == 2);
}

#if defined(LAMINA_TEST_XTENSOR)
TEST_CASE("a backend over xtensor") {
  // [xtensor]
  lamina::xtensor_backend<float> const backend;  // xtensor storage, lamina::plain_gemm
  auto const a = xt::xtensor<float, 2>{{1, 2}, {3, 4}};
  auto c = backend.make_matrix(2, 2);
  backend.gemm(lamina::transpose::no, lamina::transpose::yes, 1.0f, lamina::make_matrix_view(a),
               lamina::make_matrix_view(a), 0.0f, backend.view(c));
  // [/xtensor]
  CHECK(c == xt::xtensor<float, 2>{{5, 11}, {11, 25}});
}
#endif

TEST_CASE("DLPack in and out") {
  std::vector<float> values(6);
  lamina::dlpack_managed_tensor_versioned* const from_producer =
      lamina::to_dlpack(lamina::matrix_view<float>(values.data(), 2, 3), 0);

  // [import]
  // from_producer is lamina's from here on; its deleter runs when `tensor` dies.
  auto const tensor =
      lamina::matrix_from_dlpack<float const>(from_producer, {lamina::dlpack_device_type::cpu, 0});
  lamina::matrix_view<float const> const view = tensor.view();
  // [/import]
  CHECK(view.data == values.data());

  lamina::eigen_backend<float> const backend;
  // [export]
  auto matrix = backend.make_matrix(2, 3);
  auto* const exported = lamina::to_dlpack(backend, std::move(matrix));
  // [/export]
  CHECK(exported->dl_tensor.shape[1] == 3);
  exported->deleter(exported);
}
