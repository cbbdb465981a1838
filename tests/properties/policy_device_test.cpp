// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Estimators of every kind give on a device what they give on the host.
#include <doctest/doctest.h>

#include <vector>

#include "lamina/policy/device_loss.hpp"
#include "lamina/policy/log_prob_loss.hpp"
#include "tests/support/compositions.hpp"
#include "tests/support/device_batch.hpp"
#include "tests/support/simulated_device.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

template <class Device, class Estimator, class T>
void compare(char const* name, Estimator const& estimator, owned_batch<T> const& batch) {
  std::size_t const tokens = batch.token_ids.size();
  std::vector<T> d(tokens), d_entropies(tokens);
  policy_result const host = policy_loss(estimator, batch.log_probs, batch.view(), d, d_entropies);
  Device const device;
  device_batch<Device, T> arrays(device, batch);
  device_outputs<Device, T> outputs(device, batch.tokens(), true);
  policy_report report(device, 8);
  policy_loss(device, estimator, arrays.log_probs.view(), arrays.view(), outputs.d_log_probs.view(),
              report, outputs.d_entropies.view());
  double const rounding = 1e-12;
  INFO(name);
  CHECK(first_difference(numbers_of(report.read(device)), numbers_of(host), rounding) == -1);
  CHECK(first_difference(outputs.d_log_probs.to_host(device), d, rounding) == -1);
  CHECK(first_difference(outputs.d_entropies.to_host(device), d_entropies, rounding) == -1);
}

}  // namespace

TEST_CASE("estimators of every kind: loss, metrics and coefficients are the host's") {
  using device = simulated_device<double, 7>;
  counter_generator random(11);
  auto const batch = random_batch_of<double>(random, {17, 0, 3, 40}, 13);
  for_each_composition(
      [&](char const* name, auto const& estimator) { compare<device>(name, estimator, batch); });
}
