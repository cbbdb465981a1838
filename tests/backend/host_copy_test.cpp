// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/host_copy.hpp"

#include <doctest/doctest.h>

#include "tests/optim/device_tensors.hpp"
#include "tests/support/backends.hpp"
#include "tests/support/simulated_device.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

using device = simulated_device<float>;

// Parameters where the backend has its memory.
template <class Backend, class T>
struct placed : device_tensors<Backend, T> {
  using device_tensors<Backend, T>::device_tensors;
};
template <class T>
struct placed<minimal_backend<float>, T> {
  host_tensors<T>& host;
  placed(minimal_backend<float> const&, host_tensors<T>& on_host) : host(on_host) {}
  auto parameters() { return host.parameters(); }
  auto weights() const { return host.weights(); }
};

}  // namespace

TEST_CASE_TEMPLATE("host_copy: weights come over, change, and go back", Backend,
                   minimal_backend<float>, device) {
  host_tensors<float> host;
  host.add("a", 0, 5).add("b", 1, 3, false);
  auto const before = host.weights();
  Backend const backend;
  placed<Backend, float> tensors(backend, host);
  host_copy copy(backend, tensors.parameters());
  auto moved = std::move(copy);
  auto const& list = moved.parameters();
  REQUIRE(list.size() == 2);
  CHECK(list[1].name == "b");
  CHECK(list[1].layer == 1);
  CHECK(!list[1].decays);
  CHECK(list[1].gradient.empty());
  for (std::size_t t = 0; t < 2; ++t) {
    CHECK(std::vector(list[t].weight.begin(), list[t].weight.end()) == before[t]);
  }
  list[1].weight[2] = 42;
  CHECK(tensors.weights() == before);
  moved.write_back();
  CHECK(tensors.weights()[0] == before[0]);
  CHECK(tensors.weights()[1][2] == 42);
  list[1].weight[2] = 43;
  moved.refresh();
  CHECK(list[1].weight[2] == 42);
}

TEST_CASE("host_copy: weights that the device cannot use are refused by name") {
  host_tensors<float> host;
  host.add("a", 0, 5);
  CHECK_THROWS_WITH_AS(host_copy(device{}, host.parameters()),
                       "host_copy: the weight of a [5] does not lie in memory that the backend's "
                       "device can use",
                       device_error);
}
