// expect: lamina: an objective over the rollouts of a group runs on a device if it is
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "complete_device.hpp"
#include "lamina/policy/device_loss.hpp"
#include "lamina/policy/presets.hpp"

// An objective of a host, for the host.
struct own_objective {
  static constexpr unsigned reads = 0;
  static constexpr bool sequence_wide = true;
  static constexpr auto coupling = lamina::ratio_coupling::sequence_mean;
  lamina::no_kl kl{};
  lamina::no_entropy_bonus entropy{};
  void check() const {}
  template <class T>
  lamina::policy_result reduce(lamina::vector_view<T const>, lamina::policy_batch<T> const&,
                               lamina::vector_view<T const>, lamina::vector_view<T>,
                               lamina::vector_view<T>) const {
    return {};
  }
};

void loss(complete_device const& device, lamina::vector_view<float> values,
          lamina::policy_batch<float> const& batch,
          lamina::policy_report<complete_device>& report) {
#ifdef LAMINA_FIXED
  lamina::policy_loss(device, lamina::conspo{}, values, batch, values, report);
#else
  lamina::policy_loss(device, own_objective{}, values, batch, values, report);
#endif
}
