// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/foreign.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "lamina/core/scalar.hpp"

using namespace lamina;

namespace {

// What std::mdspan offers, over dynamic strides.
struct mdspan_like {
  float* first;
  std::vector<std::size_t> extents, strides;
  float* data_handle() const { return first; }
  static std::size_t rank() { return 3; }
  std::size_t extent(std::size_t axis) const { return extents[axis]; }
  std::size_t stride(std::size_t axis) const { return strides[axis]; }
};

// A tensor that knows nothing of lamina and has none of the names it looks for.
namespace engine {
struct blob {
  std::vector<double> numbers;
  int height, width;
};
// Better matches than lamina's own, if they were looked for here.
template <class... Anything>
void make_matrix_view(Anything&&...) = delete;
template <class... Anything>
void data(Anything&&...) = delete;
}  // namespace engine

}  // namespace

template <>
struct lamina::tensor_traits<engine::blob> {
  static auto* data(auto& blob) { return blob.numbers.data(); }
  static index_t rank(engine::blob const&) { return 2; }
  static index_t extent(engine::blob const& b, index_t axis) {
    return axis == 0 ? b.height : b.width;
  }
  static index_t stride(engine::blob const& b, index_t axis) { return axis == 0 ? b.width : 1; }
};

static_assert(foreign_tensor<engine::blob>);
static_assert(foreign_tensor<mdspan_like>);
static_assert(!foreign_tensor<std::vector<float>>);
static_assert(!foreign_tensor<float*>);

TEST_CASE("make_matrix_view: pointers with a row stride show the memory they point to") {
  float values[24] = {};
  matrix_view<float> const view = make_matrix_view(values, {3, 4}, {8, 1});
  CHECK(view.data == values);
  CHECK(view.rows == 3);
  CHECK(view.cols == 4);
  CHECK(view.stride == 8);
  view(2, 3) = 5;
  CHECK(values[19] == 5);
  float const* const constant = values;
  static_assert(std::is_same_v<decltype(make_matrix_view(constant, {3, 4}, {8, 1})),
                               matrix_view<float const>>);
}

TEST_CASE("make_matrix_view: every storage scalar, and whole numbers") {
  bf16 low[4] = {};
  CHECK(make_matrix_view(low, {2, 2}, {2, 1}).rows == 2);
  std::int32_t ids[4] = {1, 2, 3, 4};
  CHECK(make_matrix_view(ids, {2, 2}, {2, 1})(1, 0) == 3);
}

TEST_CASE("make_matrix_view: leading axes become rows where they continue each other") {
  std::vector<float> values(2 * 3 * 8);
  matrix_view<float> const view = make_matrix_view(values.data(), {2, 3, 5}, {24, 8, 1});
  CHECK(view.rows == 6);
  CHECK(view.cols == 5);
  CHECK(view.stride == 8);
  // Axes of one index have any stride.
  CHECK(make_matrix_view(values.data(), {1, 6, 1, 5}, {-7, 8, 0, 1}).stride == 8);
  CHECK(make_matrix_view(values.data(), {6, 1}, {8, 99}).stride == 8);
  CHECK(make_matrix_view(values.data(), {1, 1, 5}, {0, 0, 1}).stride == 5);
  CHECK_THROWS_WITH_AS(make_matrix_view(values.data(), {2, 2, 5}, {24, 8, 1}),
                       "make_matrix_view: tensor has shape [2, 2, 5] and strides [24, 8, 1], "
                       "expected leading axes that continue each other, so that rows are equally "
                       "far apart",
                       shape_error);
  // Every second plane, read backwards in memory: transposed leading axes.
  CHECK_THROWS_AS(make_matrix_view(values.data(), {3, 2, 5}, {8, 24, 1}), shape_error);
}

TEST_CASE("make_matrix_view: strides that are no rows are refused with what was expected") {
  std::vector<float> values(100);
  float* const data = values.data();
  CHECK_THROWS_WITH_AS(make_matrix_view(data, {4, 3}, {1, 4}),
                       "make_matrix_view: tensor has shape [4, 3] and strides [1, 4], expected a "
                       "last stride of 1: rows must be contiguous",
                       shape_error);
  CHECK_THROWS_WITH_AS(make_matrix_view(data, {4, 3}, {2, 1}),
                       "make_matrix_view: tensor has shape [4, 3] and strides [2, 1], expected "
                       "rows that do not overlap",
                       shape_error);
  CHECK_THROWS_WITH_AS(make_matrix_view(data, {4, 3}, {0, 1}),
                       "make_matrix_view: tensor has shape [4, 3] and strides [0, 1], expected "
                       "rows that do not overlap",
                       shape_error);
  CHECK_THROWS_WITH_AS(make_matrix_view(data, {4, 3}, {-3, 1}),
                       "make_matrix_view: tensor has shape [4, 3] and strides [-3, 1], expected "
                       "no negative stride",
                       shape_error);
  CHECK_THROWS_WITH_AS(make_matrix_view(data, {4, 3}, {3, -1}),
                       "make_matrix_view: tensor has shape [4, 3] and strides [3, -1], expected "
                       "no negative stride",
                       shape_error);
  CHECK_THROWS_WITH_AS(make_matrix_view(data, {2, 4, 3}, {0, 3, 1}),
                       "make_matrix_view: tensor has shape [2, 4, 3] and strides [0, 3, 1], "
                       "expected leading axes that continue each other, so that rows are equally "
                       "far apart",
                       shape_error);
  CHECK_THROWS_WITH_AS(make_matrix_view(data, {-4, 3}, {3, 1}),
                       "make_matrix_view: tensor has shape [-4, 3] and strides [3, 1], expected "
                       "no negative extent",
                       shape_error);
}

TEST_CASE("make_matrix_view: ranks and numbers of strides that cannot be are refused") {
  float value = 0;
  CHECK_THROWS_WITH_AS(make_matrix_view(&value, {1}, {1}),
                       "make_matrix_view: tensor has rank 1, expected 2 to 64", shape_error);
  CHECK_THROWS_WITH_AS(make_matrix_view(&value, {1, 1}, {1}),
                       "make_matrix_view: shape has 2 axes, strides has 1", shape_error);
  std::vector<index_t> const many(65, 1);
  CHECK_THROWS_WITH_AS(make_matrix_view(&value, many, many),
                       "make_matrix_view: tensor has rank 65, expected 1 to 64", shape_error);
}

TEST_CASE("make_matrix_view: sizes beyond the address space are refused") {
  float value = 0;
  index_t const huge = std::numeric_limits<index_t>::max();
  CHECK_THROWS_AS(make_matrix_view(&value, {huge, 2, 2}, {4, 2, 1}), shape_error);
  CHECK_THROWS_AS(make_matrix_view(&value, {2, 2}, {huge, 1}), shape_error);
  CHECK_THROWS_AS(make_matrix_view(&value, {3, huge / 4 + 1, 2}, {huge / 2, 2, 1}), shape_error);
  CHECK_THROWS_AS(make_matrix_view(&value, {2, huge / 4}, {huge / 4, 1}), shape_error);
}

TEST_CASE("make_matrix_view: null and misaligned data are refused, unless there is nothing") {
  float* const null = nullptr;
  CHECK_THROWS_WITH_AS(make_matrix_view(null, {2, 3}, {3, 1}),
                       "make_matrix_view: data is null, expected the memory of 6 elements",
                       shape_error);
  CHECK(make_matrix_view(null, {0, 3}, {3, 1}).cols == 3);
  CHECK(make_matrix_view(null, {2, 0}, {0, 1}).rows == 2);
  CHECK(make_matrix_view(null, {2, 0, 3}, {-1, 5, 7}).rows == 0);
  alignas(8) char bytes[64] = {};
  CHECK_THROWS_WITH_AS(
      make_matrix_view(reinterpret_cast<float*>(bytes + 2), {2, 3}, {3, 1}),
      "make_matrix_view: data lies 2 bytes past a multiple of 4, expected an address that is a "
      "multiple of 4",
      shape_error);
}

TEST_CASE("make_matrix_view: spans and vectors with a shape of as many elements") {
  std::vector<float> values(6);
  std::span<float> const span(values);
  make_matrix_view(span, {2, 3})(1, 0) = 4;
  CHECK(values[3] == 4);
  std::vector<float> const& constant = values;
  static_assert(
      std::is_same_v<decltype(make_matrix_view(constant, {2, 3})), matrix_view<float const>>);
  CHECK(make_matrix_view(constant, {1, 2, 3}).rows == 2);
  CHECK_THROWS_WITH_AS(make_matrix_view(values, {2, 4}),
                       "make_matrix_view: values has 6 elements, shape [2, 4] has 8", shape_error);
}

TEST_CASE("make_matrix_view: what has the members of std::mdspan") {
  std::vector<float> values(24);
  values[23] = 9;
  mdspan_like const tensor{values.data(), {2, 3, 4}, {12, 4, 1}};
  matrix_view<float> const view = make_matrix_view(tensor);
  CHECK(view.rows == 6);
  CHECK(view(5, 3) == 9);
  CHECK(make_vector_view(tensor).size == 24);
  mdspan_like const columns{values.data(), {2, 3, 4}, {1, 2, 6}};
  CHECK_THROWS_AS(make_matrix_view(columns), shape_error);
}

TEST_CASE("make_matrix_view: a host's own tensor through its specialisation of the traits") {
  engine::blob blob{{1, 2, 3, 4, 5, 6}, 2, 3};
  matrix_view<double> const view = lamina::make_matrix_view(blob);
  view(1, 2) = 8;
  CHECK(blob.numbers[5] == 8);
  engine::blob const& constant = blob;
  matrix_view<double const> const read = lamina::make_matrix_view(constant);
  CHECK(read(0, 1) == 2);
}

TEST_CASE("make_vector_view: tensors of any rank without gaps, and no others") {
  engine::blob blob{{1, 2, 3, 4, 5, 6}, 2, 3};
  CHECK(make_vector_view(blob).size == 6);
  std::vector<float> values(24);
  mdspan_like const gaps{values.data(), {2, 2, 4}, {12, 4, 1}};
  CHECK_THROWS_WITH_AS(make_vector_view(gaps),
                       "make_vector_view: tensor has shape [2, 2, 4] and strides [12, 4, 1], "
                       "expected elements without gaps, the last axis innermost",
                       shape_error);
}
