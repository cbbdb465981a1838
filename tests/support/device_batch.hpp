// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A batch, and what a loss writes, in the memory of a device; and whether two results agree.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "lamina/policy/device_loss.hpp"
#include "tests/support/random_batch.hpp"

namespace lamina::testing {

/// Elements of the host, copied to the device.
template <class Backend, class T>
device_vector<Backend, T> on_device(Backend const& backend, std::vector<T> const& values) {
  device_vector<Backend, T> result(backend, vector_view<T const>(values));
  backend.synchronize();
  return result;
}

/// The arrays of an owned_batch on the device.
template <device_backend Backend, class T>
struct device_batch {
  policy_batch<T> host;  // its numbers that are no arrays
  bool advantage_per_token;
  device_vector<Backend, index_t> offsets, group_offsets;
  device_vector<Backend, std::int32_t> token_ids;
  device_vector<Backend, T> log_probs, old_log_probs, reference, rollout, entropies, advantages;
  device_vector<Backend, std::uint8_t> selected, mask;

  device_batch(Backend const& backend, owned_batch<T> const& batch)
      : host{.denominators = batch.denominators},
        advantage_per_token(batch.advantage_per_token),
        offsets(on_device(backend, batch.offsets)),
        group_offsets(on_device(backend, batch.group_offsets)),
        token_ids(on_device(backend, batch.token_ids)),
        log_probs(on_device(backend, batch.log_probs)),
        old_log_probs(on_device(backend, batch.old_log_probs)),
        reference(on_device(backend, batch.reference_log_probs)),
        rollout(on_device(backend, batch.rollout_log_probs)),
        entropies(on_device(backend, batch.entropies)),
        advantages(on_device(backend, batch.advantages)),
        selected(on_device(backend, batch.selected)),
        mask(on_device(backend, batch.mask)) {}

  policy_batch<T> view() {
    policy_batch<T> batch = host;
    batch.offsets = offsets.view();
    batch.group_offsets = group_offsets.view();
    batch.token_ids = token_ids.view();
    batch.old_log_probs = old_log_probs.view();
    batch.reference_log_probs = reference.view();
    batch.rollout_log_probs = rollout.view();
    batch.entropies = entropies.view();
    batch.selected = selected.view();
    batch.mask = mask.view();
    (advantage_per_token ? batch.token_advantages : batch.advantages) = advantages.view();
    return batch;
  }
};

/// policy_outputs on the device.
template <device_backend Backend, class T>
struct device_outputs {
  device_vector<Backend, T> log_probs, d_log_probs, entropies, d_entropies;

  device_outputs(Backend const& backend, index_t tokens, bool with_entropies)
      : log_probs(backend, tokens),
        d_log_probs(backend, tokens),
        entropies(backend, with_entropies ? tokens : 0),
        d_entropies(backend, with_entropies ? tokens : 0) {}
  policy_outputs<T> view() {
    return {log_probs.view(), d_log_probs.view(), entropies.view(), d_entropies.view()};
  }
};

/// Numbers of two results, in one order.
inline std::vector<double> numbers_of(policy_result const& r) {
  policy_metrics const& m = r.metrics;
  return {r.loss,
          r.policy_loss,
          r.kl_loss,
          r.entropy_loss,
          static_cast<double>(m.active_tokens),
          static_cast<double>(m.nonfinite_tokens),
          m.clip_low_fraction,
          m.clip_high_fraction,
          m.bounded_fraction,
          m.filtered_fraction,
          m.kl_mean,
          m.ratio_min,
          m.ratio_mean,
          m.ratio_max,
          m.correction_min,
          m.correction_mean,
          m.correction_max,
          m.effective_sample_fraction,
          m.entropy_mean};
}

/// Index of the first number that differs by more than `relative` of it, or of the largest of all;
/// -1 if none does.
template <class A, class B>
index_t first_difference(std::vector<A> const& found, std::vector<B> const& expected,
                         double relative) {
  if (found.size() != expected.size()) return static_cast<index_t>(expected.size());
  double largest = 0;
  auto const number = [](auto x) { return static_cast<double>(x); };
  for (auto const& x : expected) {
    if (is_finite(number(x))) largest = std::max(largest, std::abs(number(x)));
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    double const a = number(found[i]), b = number(expected[i]);
    if (is_nan(a) && is_nan(b)) continue;
    if (a == b) continue;
    if (!(std::abs(a - b) <= relative * (std::abs(b) + 0.1 * largest))) {
      return static_cast<index_t>(i);
    }
  }
  return -1;
}

}  // namespace lamina::testing
