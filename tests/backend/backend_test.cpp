// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/backend.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "tests/support/typed_backends.hpp"

using namespace lamina;

namespace {

// A backend with a stream and memory of its own, as a device backend has.
struct streaming_backend : testing::minimal_backend<float> {
  struct bytes {
    void* data() const { return nullptr; }
  };
  int stream() const { return 7; }
  void synchronize() const {}
  bytes make_bytes(std::size_t) const { return {}; }
  void copy(void*, void const*, std::size_t) const {}
  bool reaches(void const*) const { return true; }
};
static_assert(check_device_backend<streaming_backend>());

template <tensor_backend B>
int kind(B const&) {
  return 1;
}
template <device_backend B>
int kind(B const&) {
  return 2;
}

}  // namespace

TEST_CASE("device_backend subsumes tensor_backend: the overload for devices is picked") {
  CHECK(kind(testing::minimal_backend<float>{}) == 1);
  CHECK(kind(streaming_backend{}) == 2);
  static_assert(!tensor_backend<int>);
}

TEST_CASE_TEMPLATE("a backend makes zeroed storage and views of it", Backend,
                   LAMINA_TEST_BACKENDS) {
  Backend const backend{};
  auto matrix = backend.make_matrix(3, 4);
  auto const view = Backend::view(matrix);
  CHECK(view.rows == 3);
  CHECK(view.cols == 4);
  for (index_t r = 0; r < 3; ++r) {
    for (index_t c = 0; c < 4; ++c) CHECK(view(r, c) == 0);
  }
  view(2, 1) = 5;
  auto const& constant = matrix;
  CHECK(Backend::view(constant)(2, 1) == 5);
}

TEST_CASE_TEMPLATE("gemm: two by two by hand, with alpha, beta and both transposes", Backend,
                   LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  std::vector<T> const a{1, 2, 3, 4}, b{5, 6, 7, 8};
  std::vector<T> c{1, 1, 1, 1};
  matrix_view<T const> const va(a.data(), 2, 2), vb(b.data(), 2, 2);
  matrix_view<T> const vc(c.data(), 2, 2);
  Backend const backend{};
  backend.gemm(transpose::no, transpose::no, T(1), va, vb, T(0), vc);
  CHECK(c == std::vector<T>{19, 22, 43, 50});
  backend.gemm(transpose::yes, transpose::no, T(2), va, vb, T(-1), vc);
  CHECK(c == std::vector<T>{33, 38, 33, 38});
  backend.gemm(transpose::no, transpose::yes, T(1), va, vb, T(0), vc);
  CHECK(c == std::vector<T>{17, 23, 39, 53});
  backend.gemm(transpose::yes, transpose::yes, T(1), va, vb, T(0), vc);
  CHECK(c == std::vector<T>{23, 31, 34, 46});
}
