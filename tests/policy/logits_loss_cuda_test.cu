// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The row bodies of the logits form in device code: loss coefficients and gradients of every kind
// of estimator, by one warp a row, are those of the host.
#include <cmath>
#include <cstdint>

#include "lamina/policy/logits_loss.hpp"
#include "lamina/policy/presets.hpp"
#include "tests/support/device.cuh"

using namespace lamina;
using namespace testing;

namespace {

using bonus_grpo =
    policy_gradient<group_relative<>, token_ratio, ppo_clip, kl_penalty<>, token_mean,
                    importance_correction<>, top_entropy_filter, entropy_bonus<>>;

template <class Estimator>
Estimator with_options() {
  Estimator estimator{};
  if constexpr (requires { estimator.kl.coefficient; }) estimator.kl.coefficient = 0.05;
  if constexpr (requires { estimator.entropy.coefficient; }) estimator.entropy.coefficient = 0.02;
  if constexpr (requires { estimator.filter.threshold; }) estimator.filter.threshold = 0.5;
  return estimator;
}

// Nine tokens of two sequences, the last of the first masked.
template <class T>
struct arrays {
  static constexpr index_t tokens = 9, vocab = 301;
  std::vector<T> logits;
  std::vector<float> old_log_probs, reference, rollout, advantages{0.7f, -1.3f}, d, out, h, d_h;
  std::vector<std::int32_t> token_ids;
  std::vector<std::uint8_t> mask;
  std::vector<index_t> offsets{0, 4, 9};

  arrays() : d(tokens), out(tokens), h(tokens), d_h(tokens) {
    for (index_t i = 0; i < tokens * vocab; ++i) {
      logits.push_back(T(static_cast<float>((i * 7919) % 1000) * 0.006f - 3.0f));
    }
    for (index_t t = 0; t < tokens; ++t) {
      token_ids.push_back(static_cast<std::int32_t>(t * 31));
      mask.push_back(t == 3 ? 0 : 1);
      old_log_probs.push_back(-6.2f - 0.05f * static_cast<float>(t % 3));
      reference.push_back(-6.1f);
      rollout.push_back(-6.25f);
    }
  }
};

template <class T>
policy_batch<float> batch_of(auto const& a) {
  policy_batch<float> b;
  b.offsets = {a.offsets.data(), 3};
  b.token_ids = {a.token_ids.data(), 9};
  b.mask = {a.mask.data(), 9};
  b.old_log_probs = {a.old_log_probs.data(), 9};
  b.reference_log_probs = {a.reference.data(), 9};
  b.rollout_log_probs = {a.rollout.data(), 9};
  b.advantages = {a.advantages.data(), 2};
  b.denominators = {.sequences = 2, .tokens = 8};
  b.temperature = 0.9;
  return b;
}

// The same arrays on the device.
template <class T>
struct device_arrays {
  device_copy<T> logits;
  device_copy<float> old_log_probs, reference, rollout, advantages, d, out, h, d_h;
  device_copy<std::int32_t> token_ids;
  device_copy<std::uint8_t> mask;
  device_copy<index_t> offsets;

  explicit device_arrays(arrays<T> const& a)
      : logits(a.logits),
        old_log_probs(a.old_log_probs),
        reference(a.reference),
        rollout(a.rollout),
        advantages(a.advantages),
        d(a.d),
        out(a.out),
        h(a.h),
        d_h(a.d_h),
        token_ids(a.token_ids),
        mask(a.mask),
        offsets(a.offsets) {}
};

template <class T>
policy_outputs<float> outputs_of(auto& a) {
  return {.log_probs = {a.out.data(), 9},
          .d_log_probs = {a.d.data(), 9},
          .entropies = {a.h.data(), 9},
          .d_entropies = {a.d_h.data(), 9}};
}

template <class Estimator, class T>
void compare() {
  auto const estimator = with_options<Estimator>();
  arrays<T> host;
  detail::count_active_tokens(batch_of<T>(host), vector_view<float>(host.d));
  device_arrays<T> const device(host);
  host_rows<>{}.run(
      9, policy_logits_body<true, T, Estimator>{
             {host.logits.data(), 9, 301}, batch_of<T>(host), outputs_of<T>(host), estimator});
  one_warp_a_row<<<9, 32>>>(policy_logits_body<true, T, Estimator>{
      {device.logits.data(), 9, 301}, batch_of<T>(device), outputs_of<T>(device), estimator});
  check(cudaGetLastError());
  auto const logits = device.logits.host();
  double const rounding = sizeof(T) == 4 ? 1e-5 : 1e-2;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    CHECK(std::abs(static_cast<float>(logits[i]) - static_cast<float>(host.logits[i])) <=
          rounding * std::abs(static_cast<float>(host.logits[i])) + 1e-9);
  }
  auto const d = device.d.host();
  for (std::size_t t = 0; t < 9; ++t) CHECK(d[t] == doctest::Approx(host.d[t]).epsilon(1e-5));
}

}  // namespace

TEST_CASE_TEMPLATE("logits become gradients on a device as on the host", E, grpo, dapo, cispo, sapo,
                   gpg, ppo, intellect2, bonus_grpo) {
  compare<E, float>();
  compare<E, bf16>();
}

TEST_CASE("the second visit of sequence-wide estimators on a device") {
  arrays<float> host;
  for (std::size_t t = 0; t < 9; ++t) {
    host.d[t] = 0.1f * static_cast<float>(t) - 0.3f;
    host.out[t] = -6.0f;
    host.h[t] = 5.0f;
    host.d_h[t] = t % 2 == 0 ? 0.0f : -0.01f;
  }
  device_arrays<float> const device(host);
  host_rows<>{}.run(
      9, logits_gradient_body<float>{
             {host.logits.data(), 9, 301}, batch_of<float>(host), outputs_of<float>(host)});
  one_warp_a_row<<<9, 32>>>(logits_gradient_body<float>{
      {device.logits.data(), 9, 301}, batch_of<float>(device), outputs_of<float>(device)});
  check(cudaGetLastError());
  auto const logits = device.logits.host();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    CHECK(logits[i] == doctest::Approx(host.logits[i]).epsilon(1e-5));
  }
}
