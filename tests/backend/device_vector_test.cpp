// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/device_vector.hpp"

#include <doctest/doctest.h>

#include <numeric>

#include "tests/support/simulated_device.hpp"

using namespace lamina;
using lamina::testing::simulated_device;

namespace {

struct double_body {
  vector_view<int> values;
  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() == 0) values[row] *= 2;
  }
};

}  // namespace

TEST_CASE(
    "device_vector: goes to the device, through a body, and back, when the stream comes to it") {
  simulated_device<float> const device;
  std::vector<int> values(5000);
  std::iota(values.begin(), values.end(), 1);
  device_vector<simulated_device<float>, int> on_device(device, vector_view<int const>(values));
  device.executor().run(on_device.size(), double_body{on_device.view()});
  CHECK(device.stream().pending() == 2);
  auto const back = on_device.to_host(device);
  for (std::size_t i = 0; i < values.size(); ++i) CHECK(back[i] == 2 * values[i]);
}

TEST_CASE(
    "device_vector: starts at zero, may be empty, moves, and gives its memory back in order") {
  simulated_device<double, 7> const device;
  {
    device_vector<simulated_device<double, 7>, index_t> first(device, 3);
    CHECK(first.to_host(device) == std::vector<index_t>{0, 0, 0});
    device_vector<simulated_device<double, 7>, index_t> second = std::move(first);
    CHECK(second.size() == 3);
    device_vector<simulated_device<double, 7>, index_t> const empty(device, 0);
    CHECK(empty.to_host(device).empty());
    CHECK(device.stream().allocated() > 0);
  }
  device.synchronize();
  CHECK(device.stream().allocated() == 0);
}

TEST_CASE("device_vector: sizes that make no sense are named") {
  simulated_device<float> const device;
  using vector = device_vector<simulated_device<float>, float>;
  CHECK_THROWS_WITH_AS(vector(device, -1), "device_vector: size is -1, expected >= 0", shape_error);
  vector v(device, 2);
  std::vector<float> const three(3);
  CHECK_THROWS_WITH_AS(v.assign(device, three),
                       "device_vector::assign: values has 3 elements, expected 2", shape_error);
}
