// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/io/raw_tensor.hpp"

#include <doctest/doctest.h>

#include <limits>

using lamina::bf16;
using lamina::dtype;
using lamina::f16;
using lamina::index_t;
using lamina::raw_tensor;
using lamina::vector_view;

namespace {

template <class T>
raw_tensor tensor_of(std::vector<T> const& values) {
  return {"t",
          lamina::dtype_of<T>,
          {static_cast<index_t>(values.size())},
          lamina::bytes_of(vector_view<T const>(values))};
}

template <class To, class From>
std::vector<To> converted(std::vector<From> const& values) {
  std::vector<To> result(values.size());
  lamina::copy_values(tensor_of(values), vector_view<To>(result), "source");
  return result;
}

}  // namespace

TEST_CASE("the table of types is in the order of the enumeration") {
  for (std::size_t i = 0; i < std::size(lamina::dtypes); ++i) {
    CHECK(static_cast<std::size_t>(lamina::dtypes[i].type) == i);
  }
  CHECK(lamina::traits_of(dtype::bf16).name == "BF16");
  CHECK(lamina::traits_of(dtype::f4).bit_count == 4);
}

TEST_CASE("a shape's elements are counted, and one that overflows is recognised") {
  CHECK(lamina::element_count({}) == 1);
  CHECK(lamina::element_count({2, 3, 4}) == 24);
  CHECK(lamina::element_count({INT64_MAX, 0}) == 0);
  CHECK(lamina::element_count({2, -1}) == -1);
  CHECK(lamina::element_count({1LL << 32, 1LL << 31}) == -1);
  CHECK(lamina::element_count({1LL << 32, 1LL << 30}) == 1LL << 62);
}

TEST_CASE(
    "values keep their worth in a type that holds them, and are rounded in one that does not") {
  std::vector<float> const values{0.f, -0.f, 1.5f, -65504.f, 1.f / 3};
  CHECK(converted<double>(values) == std::vector<double>{0, 0, 1.5, -65504, 1.f / 3});
  // 1/3 = 0x1.5555...p-2: 10 bits of it in a half, 7 in a bfloat16, both rounded.
  CHECK(static_cast<float>(converted<f16>(values)[4]) == 0x1.554p-2f);
  CHECK(static_cast<float>(converted<bf16>(values)[4]) == 0x1.56p-2f);
  std::vector<f16> const halves{f16(0.25f), f16(6e-8f)};
  CHECK(converted<float>(halves) == std::vector<float>{0.25f, 0x1p-24f});
  std::vector<bf16> const brain{bf16(3e38f)};
  CHECK(static_cast<float>(converted<f16>(brain)[0]) == std::numeric_limits<float>::infinity());
  CHECK(converted<float>(std::vector<double>{1e300, 0.1}) ==
        std::vector<float>{std::numeric_limits<float>::infinity(), 0.1f});
}

TEST_CASE("values of the same type keep their bits, a NaN's too, from any alignment") {
  std::string bytes = "x";
  for (std::uint32_t word : {0x7fa00001u, 0xffffffffu, 0x80000000u}) {
    bytes.append(reinterpret_cast<char const*>(&word), sizeof word);
  }
  float values[3];
  lamina::copy_values({"t", dtype::f32, {3}, std::string_view(bytes).substr(1)},
                      vector_view<float>(values, 3), "source");
  CHECK(std::memcmp(values, bytes.data() + 1, sizeof values) == 0);
  double wide[3];
  lamina::copy_values({"t", dtype::f32, {3}, std::string_view(bytes).substr(1)},
                      vector_view<double>(wide, 3), "source");
  CHECK(wide[2] == 0.0);
  CHECK(wide[1] != wide[1]);
}

TEST_CASE("another size and a type lamina does not compute with are refused, nothing is changed") {
  std::vector<float> const values{1, 2};
  std::vector<float> three(3, 9.f);
  CHECK_THROWS_WITH_AS(lamina::copy_values(tensor_of(values), vector_view<float>(three), "m"),
                       "copy_values: 'm': t has 2 elements, the destination has 3",
                       lamina::shape_error);
  CHECK_THROWS_WITH_AS(
      lamina::copy_values({"t", dtype::i8, {3}, "abc"}, vector_view<float>(three), "m"),
      "copy_values: 'm': t has the type I8, expected F64, F32, F16 or BF16", lamina::format_error);
  CHECK(three == std::vector<float>(3, 9.f));
}
