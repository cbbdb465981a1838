// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/device_loss.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "lamina/policy/presets.hpp"
#include "tests/support/backends.hpp"
#include "tests/support/device_batch.hpp"
#include "tests/support/simulated_device.hpp"

using namespace lamina;
using lamina::testing::device_batch;
using lamina::testing::device_outputs;
using lamina::testing::first_difference;
using lamina::testing::numbers_of;
using lamina::testing::on_device;
using lamina::testing::owned_batch;
using lamina::testing::simulated_device;

#define LAMINA_TEST_DEVICES                                                          \
  simulated_device<float>, simulated_device<double>, simulated_device<double, 7, 2>, \
      simulated_device<float, 33>

namespace {

constexpr index_t vocab = 37;

template <class T>
constexpr double rounding = sizeof(T) == 8 ? 1e-12 : 5e-6;

using bonus_grpo =
    policy_gradient<group_relative<>, token_ratio, ppo_clip, kl_penalty<>, token_mean,
                    importance_correction<>, top_entropy_filter, entropy_bonus<>>;
using bonus_gspo =
    policy_gradient<group_relative<>, sequence_mean_ratio, ppo_clip, kl_penalty<>,
                    sequence_mean_token_mean, no_correction, no_filter, entropy_bonus<token_mean>>;

bonus_grpo with_bonus() {
  return {
      .kl = {.coefficient = 0.1}, .filter = {.threshold = 0.5}, .entropy = {.coefficient = .02}};
}

// Sequences of 5, 0, 9 and 1 tokens, with gaps in the mask.
template <class T>
owned_batch<T> small_batch() {
  counter_generator random(7);
  return testing::random_batch_of<T>(random, {5, 0, 9, 1}, vocab);
}

template <class T>
std::vector<T> random_logits(index_t tokens, std::uint64_t seed = 3) {
  counter_generator random(seed);
  std::vector<T> values;
  for (index_t i = 0; i < tokens * vocab; ++i) {
    values.push_back(static_cast<T>(static_cast<compute_t<T>>(4 * random.uniform() - 2)));
  }
  return values;
}

// What a loss leaves: of the host, or of the device.
template <class T, class Number>
struct outcome {
  policy_result result;
  std::vector<T> logits;
  std::vector<Number> log_probs, d_log_probs, entropies, d_entropies;
};

template <class T, class Estimator>
outcome<T, compute_t<T>> on_host(Estimator const& estimator, owned_batch<compute_t<T>> const& batch,
                                 std::vector<T> logits, bool entropies) {
  using number = compute_t<T>;
  auto const tokens = static_cast<std::size_t>(batch.tokens());
  std::vector<number> const zeros(tokens), none(entropies ? tokens : 0);
  outcome<T, number> out{{}, std::move(logits), zeros, zeros, none, none};
  auto view = batch.view();
  view.temperature = 0.8;
  out.result = policy_loss(eigen_backend<number>{}, estimator,
                           matrix_view<T>(out.logits.data(), batch.tokens(), vocab), view,
                           {out.log_probs, out.d_log_probs, out.entropies, out.d_entropies});
  return out;
}

template <class T, class Device, class Estimator>
outcome<T, compute_t<T>> on_device_of(Device const& device, Estimator const& estimator,
                                      owned_batch<compute_t<T>> const& batch,
                                      std::vector<T> const& host_logits, bool entropies) {
  using number = compute_t<T>;
  device_batch<Device, number> arrays(device, batch);
  device_outputs<Device, number> outputs(device, batch.tokens(), entropies);
  auto logits = on_device(device, host_logits);
  policy_report report(device, 8);
  auto view = arrays.view();
  view.temperature = 0.8;
  device.synchronize();
  policy_loss(device, estimator, matrix_view<T>(logits.view().data, batch.tokens(), vocab), view,
              outputs.view(), report);
  CHECK(device.stream().pending() > 0);
  return {report.read(device),
          logits.to_host(device),
          outputs.log_probs.to_host(device),
          outputs.d_log_probs.to_host(device),
          outputs.entropies.to_host(device),
          outputs.d_entropies.to_host(device)};
}

template <class T, class Number>
void check_equal(outcome<T, Number> const& found, outcome<T, Number> const& expected,
                 double tolerance) {
  CHECK(first_difference(numbers_of(found.result), numbers_of(expected.result), tolerance) == -1);
  double const storage = sizeof(T) == 2 ? 1e-2 : tolerance;
  CHECK(first_difference(found.logits, expected.logits, storage) == -1);
  CHECK(first_difference(found.log_probs, expected.log_probs, tolerance) == -1);
  CHECK(first_difference(found.d_log_probs, expected.d_log_probs, tolerance) == -1);
  CHECK(first_difference(found.entropies, expected.entropies, tolerance) == -1);
  CHECK(first_difference(found.d_entropies, expected.d_entropies, tolerance) == -1);
}

}  // namespace

TEST_CASE_TEMPLATE("logits become gradients on a device as on the host, and nothing waits", Device,
                   LAMINA_TEST_DEVICES) {
  using T = typename Device::scalar_type;
  auto const batch = small_batch<T>();
  auto const logits = random_logits<T>(batch.tokens());
  auto const compare = [&](auto const& estimator, bool entropies) {
    check_equal(on_device_of<T>(Device{}, estimator, batch, logits, entropies),
                on_host<T>(estimator, batch, logits, entropies), rounding<T>);
  };
  compare(grpo{.kl = {.coefficient = 0.1}}, false);
  compare(with_bonus(), true);
  compare(gspo{.kl = {.coefficient = 0.1}}, true);
  compare(bonus_gspo{.kl = {.coefficient = 0.1}, .entropy = {.coefficient = 0.02}}, true);
}

TEST_CASE("narrow logits on a device, with 7 lanes that keep a row and with one that does not") {
  auto const batch = small_batch<float>();
  auto const logits = random_logits<bf16>(batch.tokens());
  auto const compare = [&](auto device, auto const& estimator, bool entropies) {
    check_equal(on_device_of<bf16>(device, estimator, batch, logits, entropies),
                on_host<bf16>(estimator, batch, logits, entropies), rounding<float>);
  };
  compare(simulated_device<float>{}, grpo{.kl = {.coefficient = 0.1}}, false);
  compare(simulated_device<float, 7, 3>{}, grpo{.kl = {.coefficient = 0.1}}, true);
  compare(simulated_device<float, 7, 3>{}, vespo{}, false);
}

TEST_CASE_TEMPLATE("coefficients from log-probs may overwrite them", Device,
                   simulated_device<float>, simulated_device<double, 7>) {
  using T = typename Device::scalar_type;
  auto const batch = small_batch<T>();
  std::vector<T> expected(batch.log_probs.size());
  luspo const estimator{.surrogate = {.clip_low = 0.1, .clip_high = 0.1}};
  auto const host = policy_loss(estimator, batch.log_probs, batch.view(), expected);
  Device const device;
  device_batch<Device, T> arrays(device, batch);
  policy_report report(device, 4);
  policy_loss(device, estimator, arrays.log_probs.view(), arrays.view(), arrays.log_probs.view(),
              report);
  CHECK(first_difference(numbers_of(report.read(device)), numbers_of(host), rounding<T>) == -1);
  CHECK(first_difference(arrays.log_probs.to_host(device), expected, rounding<T>) == -1);
}

TEST_CASE_TEMPLATE("an objective over prompt groups", Device, simulated_device<float>,
                   simulated_device<double, 7>) {
  using T = typename Device::scalar_type;
  counter_generator random(5);
  auto batch = testing::random_batch_of<T>(random, {5, 2, 9, 1, 4, 0, 7}, vocab);
  batch.advantages = {1, -1, 1, -1, -1, -1, 1};
  batch.group_offsets = {0, 4, 4, 7};
  batch.denominators.groups = 4;
  auto const logits = random_logits<T>(batch.tokens());
  conspo const estimator{.temperature = 0.7, .margin = 0.1};
  check_equal(on_device_of<T>(Device{}, estimator, batch, logits, true),
              on_host<T>(estimator, batch, logits, true), rounding<T>);
  check_equal(on_device_of<T>(Device{}, estimator, batch, logits, false),
              on_host<T>(estimator, batch, logits, false), rounding<T>);

  Device const device;
  batch.group_offsets = {0, 6, 4, 7};
  device_batch<Device, T> arrays(device, batch);
  policy_report report(device, 7);
  policy_loss(device, estimator, arrays.log_probs.view(), arrays.view(), arrays.log_probs.view(),
              report);
  CHECK_THROWS_AS(report.read(device), shape_error);
  CHECK(arrays.log_probs.to_host(device) == std::vector<T>(batch.log_probs.size()));
}

TEST_CASE("one advantage a token") {
  simulated_device<double> const device;
  auto batch = small_batch<double>();
  batch.advantage_per_token = true;
  batch.advantages = batch.entropies;
  auto const logits = random_logits<double>(batch.tokens());
  check_equal(on_device_of<double>(device, grpo{}, batch, logits, false),
              on_host<double>(grpo{}, batch, logits, false), 1e-12);
  check_equal(on_device_of<double>(device, gspo_token{}, batch, logits, false),
              on_host<double>(gspo_token{}, batch, logits, false), 1e-12);
}

TEST_CASE("the same call gives the same bits") {
  using device_type = simulated_device<float, 33>;
  auto const batch = small_batch<float>();
  auto const logits = random_logits<float>(batch.tokens());
  auto const first = on_device_of<float>(device_type{}, bonus_gspo{}, batch, logits, true);
  auto const second = on_device_of<float>(device_type{}, bonus_gspo{}, batch, logits, true);
  CHECK(first.logits == second.logits);
  CHECK(first.d_log_probs == second.d_log_probs);
  CHECK(numbers_of(first.result) == numbers_of(second.result));
}

TEST_CASE("batches without tokens, and of one token") {
  simulated_device<double> const device;
  owned_batch<double> empty;
  auto const nothing = on_device_of<double>(device, grpo{}, empty, {}, false);
  CHECK(nothing.result.loss == 0);
  CHECK(nothing.result.metrics.ratio_mean == 1);
  counter_generator random(1);
  auto const one = testing::random_batch_of<double>(random, {1}, vocab);
  auto const logits = random_logits<double>(1);
  check_equal(on_device_of<double>(device, gspo{}, one, logits, true),
              on_host<double>(gspo{}, one, logits, true), 1e-12);
  auto masked = small_batch<double>();
  for (auto& m : masked.mask) m = 0;
  masked.denominators.tokens = 0;
  auto const silent = on_device_of<double>(device, grpo{}, masked, random_logits<double>(15), true);
  CHECK(silent.result.metrics.active_tokens == 0);
  CHECK(silent.logits == std::vector<double>(15 * vocab));
}

TEST_CASE_TEMPLATE("rows that are not finite get gradient 0 and are counted", Device,
                   simulated_device<float>, simulated_device<float, 7, 2>) {
  auto batch = small_batch<float>();
  for (auto& m : batch.mask) m = 1;
  batch.mask[2] = 0;
  batch.denominators = denominators_of(batch.view());
  auto logits = random_logits<float>(batch.tokens());
  logits[2 * vocab + 1] = std::numeric_limits<float>::quiet_NaN();  // masked
  logits[6 * vocab + 5] = std::numeric_limits<float>::quiet_NaN();
  batch.old_log_probs[9] = std::numeric_limits<float>::infinity();
  auto const compare = [&](auto const& estimator) {
    auto const found = on_device_of<float>(Device{}, estimator, batch, logits, true);
    check_equal(found, on_host<float>(estimator, batch, logits, true), rounding<float>);
    CHECK(found.result.metrics.nonfinite_tokens == 2);
    CHECK(found.d_log_probs[6] == 0);
    CHECK(found.d_log_probs[9] == 0);
  };
  compare(grpo{});
  compare(gspo{});
}

TEST_CASE_TEMPLATE("tokens outside the vocabulary are read by nobody, and count as non-finite",
                   Device, simulated_device<float>, simulated_device<float, 7, 2>) {
  auto batch = small_batch<float>();
  batch.mask.assign(batch.mask.size(), 1);
  batch.denominators = denominators_of(batch.view());
  batch.token_ids[3] = -1;
  batch.token_ids[8] = vocab;
  batch.token_ids[9] = std::numeric_limits<std::int32_t>::max();
  auto const logits = random_logits<float>(batch.tokens());
  auto const test = [&](auto const& estimator) {
    auto const found = on_device_of<float>(Device{}, estimator, batch, logits, true);
    CHECK(found.result.metrics.active_tokens == 15);
    CHECK(found.result.metrics.nonfinite_tokens == 3);
    for (std::size_t t : {3u, 8u, 9u}) {
      CHECK(is_nan(found.log_probs[t]));
      CHECK(found.d_log_probs[t] == 0);
      for (std::size_t v = 0; v < vocab; ++v) CHECK(found.logits[t * vocab + v] == 0);
    }
    CHECK(found.d_log_probs[10] != 0);
  };
  batch.advantages.assign(batch.advantages.size(), 1.0f);
  batch.old_log_probs.assign(batch.old_log_probs.size(), 0.0f);
  test(grpo{});
  test(bonus_gspo{});
}

TEST_CASE_TEMPLATE("offsets that make no sense are followed by nobody, and read says so", Device,
                   simulated_device<double>, simulated_device<double, 7, 2>) {
  auto const good = small_batch<double>();
  auto const logits = random_logits<double>(good.tokens());
  std::vector<std::vector<index_t>> const broken = {
      {0, 5, 3, 14, 15}, {0, -7, 5, 14, 15}, {1, 5, 5, 14, 15},
      {0, 5, 5, 14, 16}, {0, 5, 5, 14, 14},  {0, 5, index_t(1) << 40, 14, 15}};
  Device const device;
  for (auto const& offsets : broken) {
    auto batch = good;
    batch.offsets = offsets;
    auto const test = [&](auto const& estimator) {
      device_batch<Device, double> arrays(device, batch);
      device_outputs<Device, double> outputs(device, 15, true);
      auto on = on_device(device, logits);
      policy_report report(device, 4);
      policy_loss(device, estimator, matrix_view<double>(on.view().data, 15, vocab), arrays.view(),
                  outputs.view(), report);
      CHECK_THROWS_AS(report.read(device), shape_error);
      CHECK(on.to_host(device) == std::vector<double>(15 * vocab));
      CHECK(outputs.d_log_probs.to_host(device) == std::vector<double>(15));
      CHECK(outputs.d_entropies.to_host(device) == std::vector<double>(15));
    };
    test(with_bonus());
    test(bonus_gspo{.entropy = {.coefficient = 0.1}});
  }
}

TEST_CASE("denominators below the active tokens are found when the result is read") {
  simulated_device<float> const device;
  auto batch = small_batch<float>();
  index_t const active = batch.denominators.tokens;
  batch.denominators.tokens = active - 1;
  device_batch<simulated_device<float>, float> arrays(device, batch);
  policy_report report(device, 4);
  policy_loss(device, dapo{}, arrays.log_probs.view(), arrays.view(), arrays.log_probs.view(),
              report);
  CHECK_THROWS_AS(report.read(device), config_error);
}

TEST_CASE("log-probs and entropies on a device; a token outside the vocabulary has none") {
  simulated_device<float, 7> const device;
  auto const host_logits = random_logits<bf16>(4);
  std::vector<std::int32_t> const ids{3, -2, 36, 5};
  std::vector<std::uint8_t> const mask{1, 1, 1, 0};
  auto const logits = on_device(device, host_logits);
  auto const device_ids = on_device(device, ids);
  auto const device_mask = on_device(device, mask);
  device_vector<simulated_device<float, 7>, float> log_probs(device, 4), entropies(device, 4);
  token_log_probs(device, matrix_view<bf16 const>(logits.view().data, 4, vocab), device_ids.view(),
                  device_mask.view(), 0.7, log_probs.view(), entropies.view());
  CHECK(device.stream().pending() > 0);
  std::vector<float> expected(4), expected_entropies(4);
  std::vector<std::int32_t> const legal{3, 0, 36, 5};
  token_log_probs(eigen_backend<float>{}, matrix_view<bf16 const>(host_logits.data(), 4, vocab),
                  legal, mask, 0.7, expected, expected_entropies);
  expected[1] = std::numeric_limits<float>::quiet_NaN();
  CHECK(first_difference(log_probs.to_host(device), expected, 1e-6) == -1);
  CHECK(first_difference(entropies.to_host(device), expected_entropies, 1e-6) == -1);
}

TEST_CASE("what the host can see is refused before anything is asked for") {
  using device_type = simulated_device<float>;
  device_type const device;
  auto const batch = small_batch<float>();
  device_batch<device_type, float> arrays(device, batch);
  device_outputs<device_type, float> outputs(device, 15, false);
  auto logits = on_device(device, random_logits<float>(15));
  policy_report report(device, 4), small_report(device, 3);
  device.synchronize();
  matrix_view<float> const matrix(logits.view().data, 15, vocab);
  auto const refused = [&](auto const& change) {
    auto view = arrays.view();
    auto out = outputs.view();
    change(view, out);
    policy_loss(device, grpo{}, matrix, view, out, report);
  };
  CHECK_THROWS_WITH_AS(
      refused([&](auto& b, auto&) { b.old_log_probs = batch.old_log_probs; }),
      "policy_loss: batch.old_log_probs [15] does not lie in memory that the backend's device can "
      "use",
      device_error);
  std::vector<float> on_the_host(15);
  CHECK_THROWS_WITH_AS(refused([&](auto&, auto& o) { o.d_log_probs = on_the_host; }),
                       "policy_loss: outputs.d_log_probs [15] does not lie in memory that the "
                       "backend's device can use",
                       device_error);
  CHECK_THROWS_WITH_AS(refused([&](auto& b, auto& o) {
                         o.d_log_probs = {const_cast<float*>(b.old_log_probs.data), 15};
                       }),
                       "policy_loss: outputs.d_log_probs [15] overlaps batch.old_log_probs; "
                       "expected memory apart for "
                       "what is written",
                       device_error);
  CHECK_THROWS_AS(refused([&](auto&, auto& o) { o.log_probs = o.d_log_probs; }), device_error);
  CHECK_THROWS_AS(refused([&](auto&, auto& o) { o.log_probs.data = matrix.data + 5; }),
                  device_error);
  CHECK_THROWS_WITH_AS(refused([&](auto& b, auto&) {
                         auto const at = reinterpret_cast<std::uintptr_t>(b.offsets.data) + 4;
                         b.offsets = {reinterpret_cast<index_t const*>(at), 5};
                       }),
                       "policy_loss: batch.offsets is not aligned to the 8 bytes of its elements",
                       device_error);
  CHECK_THROWS_AS(policy_loss(device, grpo{}, arrays.log_probs.view(), arrays.view(),
                              vector_view<float>(arrays.log_probs.view().data + 1, 15), report),
                  device_error);
  CHECK_THROWS_AS(refused([&](auto& b, auto&) { b.mask.size = 3; }), shape_error);
  CHECK_THROWS_AS(refused([&](auto& b, auto&) { b.offsets.size = 0; }), shape_error);
  CHECK_THROWS_AS(refused([&](auto& b, auto&) { b.advantages.size = 3; }), shape_error);
  CHECK_THROWS_AS(refused([&](auto& b, auto&) { b.old_log_probs = {}; }), shape_error);
  CHECK_THROWS_AS(refused([&](auto& b, auto&) { b.denominators.sequences = 1; }), config_error);
  CHECK_THROWS_AS(refused([&](auto& b, auto&) { b.temperature = 0; }), config_error);
  CHECK_THROWS_AS(refused([&](auto&, auto& o) { o.log_probs.size = 14; }), shape_error);
  CHECK_THROWS_WITH_AS(
      policy_loss(device, grpo{}, matrix, arrays.view(), outputs.view(), small_report),
      "policy_loss: the batch has 4 sequences in 0 groups, the report is for 3 at most",
      shape_error);
  CHECK_THROWS_AS(policy_loss(device, grpo{}, arrays.log_probs.view(), arrays.view(),
                              arrays.log_probs.view().subview(0, 3), report),
                  shape_error);
  CHECK(device.stream().pending() == 0);
}

TEST_CASE("a report stays on the device until it is read") {
  simulated_device<float> const device;
  auto const batch = small_batch<float>();
  device_batch<simulated_device<float>, float> arrays(device, batch);
  policy_report report(device, 4);
  CHECK(report.most_sequences() == 4);
  policy_loss(device, grpo{}, arrays.log_probs.view(), arrays.view(), arrays.log_probs.view(),
              report);
  policy_result copy;
  device.copy(&copy, report.on_device(), sizeof copy);
  CHECK(copy.metrics.active_tokens == 0);
  device.synchronize();
  CHECK(copy.metrics.active_tokens == batch.denominators.tokens);
  CHECK(numbers_of(report.read(device)) == numbers_of(copy));
}
