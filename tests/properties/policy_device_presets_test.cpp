// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every preset gives on a device what it gives on the host.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "lamina/policy/device_loss.hpp"
#include "lamina/policy/visit_preset.hpp"
#include "tests/support/device_batch.hpp"
#include "tests/support/simulated_device.hpp"

using namespace lamina;
using namespace lamina::testing;

TEST_CASE("every preset: loss, metrics and coefficients on a device are the host's") {
  using device_type = simulated_device<float>;
  counter_generator random(5);
  auto batch = random_batch_of<float>(random, {9, 20, 1}, 13);
  batch.advantages = {0.7f, -1.2f, 0.5f};
  batch.group_offsets = {0, 3};  // read by conspo
  batch.denominators.groups = 1;
  device_type const device;
  device_batch<device_type, float> arrays(device, batch);
  device_outputs<device_type, float> outputs(device, batch.tokens(), false);
  policy_report report(device, 3);
  std::vector<float> d(batch.token_ids.size());
  for (std::string_view name : preset_names) {
    visit_preset(name, [&](auto estimator) {
      if constexpr (requires { estimator.aggregation.length; }) estimator.aggregation.length = 20;
      if constexpr (requires { estimator.kl.coefficient; }) estimator.kl.coefficient = 0.1;
      policy_result const host = policy_loss(estimator, batch.log_probs, batch.view(), d);
      policy_loss(device, estimator, arrays.log_probs.view(), arrays.view(),
                  outputs.d_log_probs.view(), report);
      CAPTURE(std::string(name));
      CHECK(first_difference(numbers_of(report.read(device)), numbers_of(host), 1e-5) == -1);
      CHECK(first_difference(outputs.d_log_probs.to_host(device), d, 1e-5) == -1);
    });
  }
}
