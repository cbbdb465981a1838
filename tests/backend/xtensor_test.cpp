// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/xtensor.hpp"

#include <doctest/doctest.h>

#if __has_include(<xtensor/containers/xarray.hpp>)
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/containers/xarray.hpp>
#include <xtensor/views/xstrided_view.hpp>
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xstrided_view.hpp>
#include <xtensor/xview.hpp>
#endif

#include <type_traits>
#include <vector>

#include "lamina/backend/eigen.hpp"
#include "tests/support/gemm_cases.hpp"
#include "tests/support/threaded_lanes.hpp"

using namespace lamina;

namespace {

// 0, 1, 2 ... in a row-major container.
template <class Container>
Container counted(typename Container::shape_type const& shape) {
  Container container(shape);
  for (std::size_t i = 0; i < container.size(); ++i) {
    container.storage()[i] = static_cast<typename Container::value_type>(i);
  }
  return container;
}

// Whether the view shows the elements of a rank 2 expression in its own memory.
template <class T, class X>
bool shows(matrix_view<T> view, X const& x) {
  bool same = view.rows == static_cast<index_t>(x.shape()[0]) &&
              view.cols == static_cast<index_t>(x.shape()[1]);
  for (index_t row = 0; same && row < view.rows; ++row) {
    for (index_t col = 0; same && col < view.cols; ++col) {
      same = view(row, col) == x(static_cast<std::size_t>(row), static_cast<std::size_t>(col));
    }
  }
  return same;
}

}  // namespace

TEST_CASE_TEMPLATE("xtensor_backend: products agree with Eigen's, with plain and foreign products",
                   T, float, double) {
  eigen_backend<T> const by_eigen;
  auto const a = testing::strided_numbers<T>(4, 70, 50, 53, T(0));
  auto const b = testing::strided_numbers<T>(5, 90, 50, 50, T(0));
  matrix_view<T const> const a_view{a.data(), 70, 50, 53}, b_view{b.data(), 90, 50};
  auto expected = by_eigen.make_matrix(70, 90);
  by_eigen.gemm(transpose::no, transpose::yes, T(1), a_view, b_view, T(0), by_eigen.view(expected));
  auto const difference = [&](auto const& backend) {
    auto result = backend.make_matrix(70, 90);
    backend.gemm(transpose::no, transpose::yes, T(1), a_view, b_view, T(0), backend.view(result));
    double worst = 0;
    for (index_t row = 0; row < 70; ++row) {
      for (index_t col = 0; col < 90; ++col) {
        double const here =
            std::abs(double{result(static_cast<std::size_t>(row), static_cast<std::size_t>(col))} -
                     double{expected(row, col)});
        worst = here <= worst ? worst : here;
      }
    }
    return worst;
  };
  double const allowed = 50 * double{std::numeric_limits<T>::epsilon()};
  CHECK(difference(xtensor_backend<T>{}) < allowed);
  CHECK(difference(xtensor_backend<T, serial_for, eigen_gemm>{}) == 0);
}

TEST_CASE("xtensor_backend: a product has the same bits on any number of threads") {
  using threaded = testing::spawning_for;
  auto const a = testing::strided_numbers<float>(1, 9, 33, 33, 0.f);
  auto const b = testing::strided_numbers<float>(2, 1500, 33, 33, 0.f);
  auto const product = [&](auto const& backend) {
    auto c = backend.make_matrix(9, 1500);
    backend.gemm(transpose::no, transpose::yes, 1.f, {a.data(), 9, 33}, {b.data(), 1500, 33}, 0.f,
                 backend.view(c));
    return c;
  };
  CHECK(product(xtensor_backend<float>{}) ==
        product(xtensor_backend<float, threaded>{threaded{3}, {}}));
}

TEST_CASE_TEMPLATE("make_matrix_view: containers of xtensor of rank 2 and more", T, float, double) {
  auto matrix = counted<xt::xtensor<T, 2>>({3, 4});
  matrix_view<T> const view = make_matrix_view(matrix);
  CHECK(view.data == matrix.data());
  CHECK(view.contiguous());
  CHECK(shows(view, matrix));
  auto const& constant = matrix;
  static_assert(std::is_same_v<decltype(make_matrix_view(constant)), matrix_view<T const>>);

  auto array = counted<xt::xarray<T>>({2, 3, 4});
  matrix_view<T> const rows = make_matrix_view(array);
  CHECK(rows.rows == 6);
  CHECK(rows.cols == 4);
  CHECK(rows(5, 3) == array(1, 2, 3));
  vector_view<T> const all = make_vector_view(array);
  CHECK(all.size == 24);
  CHECK(all[23] == 23);
}

TEST_CASE("make_matrix_view: adaptors of xtensor write through to the memory they adapt") {
  std::vector<float> values(12);
  auto adapted = xt::adapt(values, std::vector<std::size_t>{3, 4});
  make_matrix_view(adapted)(2, 1) = 7;
  CHECK(values[9] == 7);
  auto pointed = xt::adapt(values.data(), 12, xt::no_ownership(), std::vector<std::size_t>{2, 6});
  CHECK(make_matrix_view(pointed)(1, 3) == 7);
}

TEST_CASE("make_matrix_view: strided views of xtensor, if rows are contiguous") {
  auto matrix = counted<xt::xarray<float>>({6, 8});
  auto block = xt::view(matrix, xt::range(1, 5), xt::range(2, 7));
  auto const view = make_matrix_view(block);
  CHECK(view.stride == 8);
  CHECK(shows(view, block));
  auto every_other = xt::view(matrix, xt::range(0, 6, 2), xt::all());
  CHECK(make_matrix_view(every_other).stride == 16);
  CHECK(shows(make_matrix_view(every_other), every_other));
  auto strided = xt::strided_view(matrix, {xt::range(1, 4), xt::range(3, 8)});
  CHECK(shows(make_matrix_view(strided), strided));

  auto tensor = counted<xt::xtensor<float, 3>>({4, 3, 5});
  auto layer = xt::view(tensor, 2, xt::all(), xt::all());
  CHECK(shows(make_matrix_view(layer), layer));
  auto sliced = xt::view(tensor, xt::all(), xt::all(), xt::range(0, 2));
  CHECK(make_matrix_view(sliced).rows == 12);
  CHECK(make_matrix_view(sliced)(11, 1) == tensor(3, 2, 1));
}

TEST_CASE("make_matrix_view: what xtensor strides otherwise is refused with its strides") {
  auto matrix = counted<xt::xarray<float>>({6, 8});
  auto inner = xt::view(matrix, xt::all(), xt::range(0, 8, 2));
  CHECK_THROWS_WITH_AS(make_matrix_view(inner),
                       "make_matrix_view: tensor has shape [6, 4] and strides [8, 2], expected a "
                       "last stride of 1: rows must be contiguous",
                       shape_error);
  xt::xtensor<float, 2, xt::layout_type::column_major> const columns(
      std::array<std::size_t, 2>{3, 4});
  CHECK_THROWS_WITH_AS(make_matrix_view(columns),
                       "make_matrix_view: tensor has shape [3, 4] and strides [1, 3], expected a "
                       "last stride of 1: rows must be contiguous",
                       shape_error);
  auto tensor = counted<xt::xtensor<float, 3>>({4, 3, 5});
  auto gaps = xt::view(tensor, xt::all(), xt::range(0, 2), xt::all());
  CHECK_THROWS_WITH_AS(make_matrix_view(gaps),
                       "make_matrix_view: tensor has shape [4, 2, 5] and strides [15, 5, 1], "
                       "expected leading axes that continue each other, so that rows are equally "
                       "far apart",
                       shape_error);
  xt::xtensor<float, 1> const line{1, 2, 3};
  CHECK_THROWS_WITH_AS(make_matrix_view(line),
                       "make_matrix_view: tensor has rank 1, expected 2 to 64", shape_error);
}
