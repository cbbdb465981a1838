// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/backend_vector.hpp"

#include <doctest/doctest.h>

#include "tests/support/backends.hpp"
#include "tests/support/simulated_device.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

struct pair {
  index_t first;
  float second;
};

}  // namespace

TEST_CASE_TEMPLATE("backend_vector: zeros, then what was copied, on hosts and devices", Backend,
                   minimal_backend<float>, eigen_backend<double>, simulated_device<float>,
                   simulated_device<double>) {
  Backend const backend;
  backend_vector<Backend, pair> some(backend, 3);
  CHECK(some.size() == 3);
  for (pair const p : some.to_host(backend)) {
    CHECK(p.first == 0);
    CHECK(p.second == 0.0f);
  }
  std::vector<pair> const values{{1, 2.0f}, {3, 4.0f}};
  copy_elements(backend, values, some.view().subview(1, 2));
  auto const moved = std::move(some);
  auto const found = moved.to_host(backend);
  CHECK(found[0].first == 0);
  CHECK(found[1].second == 2.0f);
  CHECK(found[2].first == 3);
  CHECK(read_element(backend, moved.view(), 1).first == 1);
  CHECK(read_element(backend, moved.view(), 2).second == 4.0f);
  CHECK(backend_vector<Backend, double>(backend, 0).to_host(backend).empty());
}

TEST_CASE_TEMPLATE("copy_elements: other sizes are refused", Backend, minimal_backend<float>,
                   simulated_device<float>) {
  Backend const backend;
  backend_vector<Backend, int> to(backend, 3);
  std::vector<int> const two(2);
  CHECK_THROWS_WITH_AS(copy_elements(backend, two, to.view()),
                       "copy_elements: 2 elements are given for 3", shape_error);
}

TEST_CASE("copy_elements: a device copies when its stream comes to it, and wait waits for that") {
  simulated_device<float> const device;
  std::vector<int> values{1, 2}, found(2);
  backend_vector<simulated_device<float>, int> on_device(device, 2);
  copy_elements(device, values, on_device.view());
  copy_elements(device, on_device.view(), vector_view<int>(found));
  CHECK(device.stream().pending() == 2);
  CHECK(found == std::vector{0, 0});
  wait(device);
  CHECK(device.stream().pending() == 0);
  CHECK(found == values);
  wait(minimal_backend<float>{});
}
