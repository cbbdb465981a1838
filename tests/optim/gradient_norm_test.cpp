// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/optim/gradient_norm.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/optim/tensors.hpp"
#include "tests/support/typed_backends.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE_TEMPLATE("gradient_norm: 3, 4 and 12 in two tensors make 13", Backend,
                   LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  host_tensors<T> host;
  host.add("a", 0, 2).add("b", 1, 1);
  host.tensors[0].gradient = {T(3), T(-4)};
  host.tensors[1].gradient = {T(12)};
  auto const result = gradient_norm(Backend{}, host.parameters());
  CHECK(result.norm == 13.0);
  CHECK(result.nonfinite_count == 0);
}

TEST_CASE_TEMPLATE("gradient_norm: agrees with one long sum for every lane count", T, float, double,
                   bf16, f16) {
  auto host = tensors_of_many_sizes<T>();
  long double squares = 0;
  for (auto const& t : host.tensors) {
    for (T const g : t.gradient) {
      squares += static_cast<long double>(g) * static_cast<long double>(g);
    }
  }
  double const expected = static_cast<double>(std::sqrt(squares));
  auto const parameters = host.parameters();
  auto const check = [&](auto backend) {
    CHECK(gradient_norm(backend, parameters).norm == doctest::Approx(expected).epsilon(1e-13));
  };
  check(eigen_backend<double>{});
  check(minimal_backend<double>{});
  check(threaded_backend<double, 1>{});
  check(threaded_backend<double, 7>{});
  check(threaded_backend<double, 33>{});
}

TEST_CASE("gradient_norm: the same bits for any number of threads and any order of rows") {
  auto host = tensors_of_many_sizes<float>();
  auto const parameters = host.parameters();
  double const expected = gradient_norm(eigen_backend<float>{}, parameters).norm;
  CHECK(gradient_norm(minimal_backend<float>{}, parameters).norm == expected);  // last row first
  for (index_t const threads : {1, 2, 5}) {
    CHECK(gradient_norm(eigen_backend<float, spawning_for>{{threads}}, parameters).norm ==
          expected);
  }
}

TEST_CASE_TEMPLATE("gradient_norm: infinite and NaN elements are counted wherever they are", T,
                   float, double, bf16, f16) {
  auto host = tensors_of_many_sizes<T>();
  auto const parameters = host.parameters();
  auto const poison = [](double value) { return static_cast<T>(static_cast<float>(value)); };
  host.tensors[0].gradient[0] = poison(not_a_number);
  host.tensors[6].gradient[4096] = poison(-infinity);
  host.tensors[7].gradient[8999] = poison(infinity);
  host.tensors[7].gradient[5000] = poison(not_a_number);
  for (auto const& result : {gradient_norm(eigen_backend<double>{}, parameters),
                             gradient_norm(threaded_backend<double, 7>{}, parameters)}) {
    CHECK(result.nonfinite_count == 4);
    CHECK_FALSE(is_finite(result.norm));
  }
}

TEST_CASE("gradient_norm: float gradients whose squares overflow float have a finite norm") {
  host_tensors<float> host;
  host.add("a", 0, 2);
  host.tensors[0].gradient = {3e30f, 4e30f};
  CHECK(gradient_norm(eigen_backend<float>{}, host.parameters()).norm ==
        doctest::Approx(5e30).epsilon(1e-6));
}

TEST_CASE("gradient_norm: squares that overflow double make it infinite, with nothing to count") {
  host_tensors<double> host;
  host.add("a", 0, 2);
  host.tensors[0].gradient = {1e200, 1.0};
  auto const result = gradient_norm(eigen_backend<double>{}, host.parameters());
  CHECK(result.norm == infinity);
  CHECK(result.nonfinite_count == 0);
}

TEST_CASE("gradient_norm: parameters without gradient add nothing") {
  host_tensors<float> host;
  host.add("a", 0, 3).add("frozen", 1, 5);
  host.tensors[1].gradient.clear();
  host.tensors[0].gradient = {0.0f, 2.0f, 0.0f};
  CHECK(gradient_norm(eigen_backend<float>{}, host.parameters()).norm == 2.0);
  CHECK(gradient_norm(eigen_backend<float>{}, std::vector<parameter_view<float>>{}).norm == 0.0);
}

TEST_CASE("clip_scale: max_norm over norm plus 1e-6, never above 1") {
  static_assert(clip_scale(0.5, 1.0) == 1.0);
  static_assert(clip_scale(0.0, 1e-3) == 1.0);
  static_assert(clip_scale(4.0, 1.0) == 1.0 / (4.0 + 1e-6));
  static_assert(clip_scale(1.0, 1.0) == 1.0 / (1.0 + 1e-6));  // as torch: 1 itself is scaled
  CHECK(clip_scale(1e300, infinity) == 1.0);
  CHECK(clip_scale(infinity, infinity) == 1.0);
  CHECK(clip_scale(infinity, 1.0) == 0.0);
  CHECK_THROWS_WITH_AS(clip_scale(1.0, 0.0), "clip_scale: max_norm is 0, expected > 0 or infinity",
                       config_error);
  CHECK_THROWS_WITH_AS(clip_scale(1.0, not_a_number),
                       "clip_scale: max_norm is nan, expected > 0 or infinity", config_error);
}
