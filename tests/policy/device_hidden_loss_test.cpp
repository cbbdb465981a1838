// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/device_hidden_loss.hpp"

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

namespace {

constexpr index_t vocab = 37, width = 6;

using bonus_grpo = policy_gradient<group_relative<>, token_ratio, ppo_clip, kl_penalty<>,
                                   token_mean, no_correction, no_filter, entropy_bonus<>>;
using bonus_gspo =
    policy_gradient<group_relative<>, sequence_mean_ratio, ppo_clip, kl_penalty<>,
                    sequence_mean_token_mean, no_correction, no_filter, entropy_bonus<token_mean>>;

// A device that multiplies narrow matrices as they lie, as cuBLAS does.
template <index_t LaneCount = 0, index_t SlotCount = 0>
struct narrow_device : simulated_device<float, LaneCount, SlotCount> {
  using simulated_device<float, LaneCount, SlotCount>::gemm;
  template <storage_scalar In, storage_scalar Out>
  void gemm(transpose ta, transpose tb, float alpha, matrix_view<In const> a,
            matrix_view<In const> b, float beta, matrix_view<Out> c) const {
    this->stream().ask([=] {
      index_t const depth = ta == transpose::yes ? a.rows : a.cols;
      for (index_t i = 0; i < c.rows; ++i) {
        for (index_t j = 0; j < c.cols; ++j) {
          double sum = 0;
          for (index_t k = 0; k < depth; ++k) {
            float const x = ta == transpose::yes ? a(k, i) : a(i, k);
            float const y = tb == transpose::yes ? b(j, k) : b(k, j);
            sum += static_cast<double>(x) * static_cast<double>(y);
          }
          double const old = beta == 0 ? 0.0 : static_cast<double>(beta * c(i, j));
          c(i, j) = static_cast<Out>(static_cast<float>(static_cast<double>(alpha) * sum + old));
        }
      }
    });
  }
};

template <class T>
std::vector<T> random_values(index_t count, std::uint64_t seed) {
  counter_generator random(seed);
  std::vector<T> values;
  for (index_t i = 0; i < count; ++i) {
    values.push_back(static_cast<T>(static_cast<compute_t<T>>(2 * random.uniform() - 1)));
  }
  return values;
}

// Sequences of 5, 0, 9 and 1 tokens, with gaps in the mask and garbage where they are.
template <class T, class HeadT>
struct problem {
  using number = compute_t<T>;
  owned_batch<number> batch;
  std::vector<T> hidden;
  std::vector<HeadT> head = random_values<HeadT>(vocab * width, 5);

  problem() {
    counter_generator random(7);
    batch = testing::random_batch_of<number>(random, {5, 0, 9, 1}, vocab);
    hidden = random_values<T>(batch.tokens() * width, 3);
    for (index_t t = 0; t < batch.tokens(); ++t) {
      batch.old_log_probs[static_cast<std::size_t>(t)] -= number(2);
      batch.reference_log_probs[static_cast<std::size_t>(t)] -= number(2);
      if (batch.mask[static_cast<std::size_t>(t)]) continue;
      hidden[static_cast<std::size_t>(t * width + t % width)] =
          static_cast<T>(std::numeric_limits<number>::infinity());
    }
  }
};

template <class T, class Number>
struct outcome {
  policy_result result;
  std::vector<T> d_hidden;
  std::vector<Number> d_head, log_probs, d_log_probs, entropies;
};

template <bool Trained, class T, class HeadT, class Estimator>
outcome<T, compute_t<T>> on_host(Estimator const& estimator, problem<T, HeadT> const& p) {
  using number = compute_t<T>;
  std::size_t const tokens = p.batch.token_ids.size();
  std::vector<number> const zeros(tokens);
  outcome<T, number> out{{},    p.hidden, std::vector<number>(p.head.size(), number(0.5)),
                         zeros, zeros,    zeros};
  std::vector<number> d_entropies(tokens);
  matrix_view<T> const hidden(out.d_hidden.data(), p.batch.tokens(), width);
  hidden_states<T> const states{hidden, hidden};
  matrix_view<HeadT const> const weights(p.head.data(), vocab, width);
  auto view = p.batch.view();
  view.temperature = 0.8;
  auto const loss = [&](auto const& head) {
    std::vector<number> scratch(static_cast<std::size_t>(hidden_scratch_size(states, head)));
    return policy_loss(eigen_backend<number>{}, estimator, states, head, view,
                       {out.log_probs, out.d_log_probs, out.entropies, d_entropies},
                       vector_view<number>(scratch));
  };
  if constexpr (Trained) {
    out.result =
        loss(trained_head<HeadT>{weights, matrix_view<number>(out.d_head.data(), vocab, width)});
  } else {
    out.result = loss(frozen_head<HeadT>{weights});
  }
  return out;
}

// With scratch for `rows` tokens at a time.
template <bool Trained, class Device, class Logits = wide_logits, class T, class HeadT,
          class Estimator>
outcome<T, compute_t<T>> on_device_of(Estimator const& estimator, problem<T, HeadT> const& p,
                                      index_t rows) {
  using number = compute_t<T>;
  Device const device;
  index_t const tokens = p.batch.tokens();
  device_batch<Device, number> arrays(device, p.batch);
  device_outputs<Device, number> outputs(device, tokens, true);
  auto hidden = on_device(device, p.hidden);
  auto weights = on_device(device, p.head);
  auto d_head = on_device(device, std::vector<number>(p.head.size(), number(0.5)));
  matrix_view<T> const matrix(hidden.view().data, tokens, width);
  hidden_states<T> const states{matrix, matrix};
  policy_report report(device, 4);
  auto view = arrays.view();
  view.temperature = 0.8;
  auto const loss = [&](auto const& head) {
    detail::device_hidden_layout<Device, T, std::remove_cvref_t<decltype(head)>, Logits> const
        layout(states, head);
    device_vector<Device, number> scratch(
        device, rows < tokens ? layout.size(rows)
                              : device_hidden_scratch_size(device, states, head,
                                                           default_device_hidden_budget, Logits{}));
    policy_loss(device, estimator, states, head, view, outputs.view(), scratch.view(), report,
                Logits{});
    CHECK(device.stream().pending() > 0);
  };
  matrix_view<HeadT const> const head_matrix(weights.view().data, vocab, width);
  if constexpr (Trained) {
    loss(trained_head<HeadT>{head_matrix, matrix_view<number>(d_head.view().data, vocab, width)});
  } else {
    loss(frozen_head<HeadT>{head_matrix});
  }
  return {report.read(device),
          hidden.to_host(device),
          d_head.to_host(device),
          outputs.log_probs.to_host(device),
          outputs.d_log_probs.to_host(device),
          outputs.entropies.to_host(device)};
}

template <class Device, class T, class HeadT = T>
void compare(double numbers, double gradients) {
  problem<T, HeadT> const p;
  auto const compare_one = [&]<bool Trained>(auto const& estimator, std::bool_constant<Trained>) {
    auto const expected = on_host<Trained>(estimator, p);
    for (index_t rows : {index_t(4), p.batch.tokens()}) {
      auto const found = on_device_of<Trained, Device>(estimator, p, rows);
      CHECK(first_difference(numbers_of(found.result), numbers_of(expected.result), numbers) == -1);
      CHECK(first_difference(found.log_probs, expected.log_probs, numbers) == -1);
      CHECK(first_difference(found.d_log_probs, expected.d_log_probs, numbers) == -1);
      CHECK(first_difference(found.entropies, expected.entropies, numbers) == -1);
      CHECK(first_difference(found.d_hidden, expected.d_hidden, gradients) == -1);
      CHECK(first_difference(found.d_head, expected.d_head, gradients) == -1);
    }
  };
  std::true_type const trained;
  std::false_type const frozen;
  compare_one(grpo{.kl = {.coefficient = 0.1}}, frozen);
  compare_one(bonus_grpo{.entropy = {.coefficient = 0.02}}, trained);
  compare_one(gspo{.kl = {.coefficient = 0.1}}, frozen);  // scales at the end
  compare_one(gspo{}, trained);
  compare_one(bonus_gspo{.entropy = {.coefficient = 0.02}}, frozen);
}

}  // namespace

TEST_CASE("hidden states of the scalar type: loss and gradients are the host's") {
  compare<simulated_device<double>, double>(1e-12, 1e-11);
  compare<simulated_device<float, 7, 2>, float>(1e-5, 1e-5);
}

TEST_CASE("narrow hidden states multiplied as they lie: d logits are rounded once") {
  compare<narrow_device<7, 2>, bf16>(1e-5, 2e-2);  // lanes keep all of a row
  compare<narrow_device<7, 1>, bf16>(1e-5, 2e-2);  // or not all of it
  compare<narrow_device<>, bf16>(1e-5, 2e-2);
}

TEST_CASE("narrow logits: the loss is that of logits rounded to bf16, and so are gradients") {
  problem<bf16, bf16> p;
  // What is not finite cannot be compared after products.
  p.hidden = random_values<bf16>(p.batch.tokens() * width, 3);
  index_t const tokens = p.batch.tokens();
  auto const check = [&](auto const& estimator) {
    std::vector<bf16> logits(static_cast<std::size_t>(tokens * vocab));
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t v = 0; v < vocab; ++v) {
        double sum = 0;
        for (index_t k = 0; k < width; ++k) {
          sum += static_cast<double>(p.hidden[static_cast<std::size_t>(t * width + k)]) *
                 static_cast<double>(p.head[static_cast<std::size_t>(v * width + k)]);
        }
        logits[static_cast<std::size_t>(t * vocab + v)] = bf16(static_cast<float>(sum));
      }
    }
    std::vector<float> log_probs(static_cast<std::size_t>(tokens)),
        d_log_probs = log_probs, entropies = log_probs, d_entropies = log_probs;
    auto view = p.batch.view();
    view.temperature = 0.8;
    policy_result const result = policy_loss(eigen_backend<float>{}, estimator,
                                             matrix_view<bf16>(logits.data(), tokens, vocab), view,
                                             {log_probs, d_log_probs, entropies, d_entropies});
    std::vector<bf16> d_hidden;
    std::vector<float> d_head(p.head.size(), 0.5f);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t k = 0; k < width; ++k) {
        float sum = 0;
        for (index_t v = 0; v < vocab; ++v) {
          std::size_t const at = static_cast<std::size_t>(v * width + k);
          float const d = logits[static_cast<std::size_t>(t * vocab + v)];
          sum += d * p.head[at];
          d_head[at] += d * p.hidden[static_cast<std::size_t>(t * width + k)];
        }
        d_hidden.push_back(bf16(sum));
      }
    }
    for (index_t const rows : {index_t(4), tokens}) {
      auto const found = on_device_of<true, narrow_device<7, 1>, narrow_logits>(estimator, p, rows);
      CHECK(first_difference(numbers_of(found.result), numbers_of(result), 1e-5) == -1);
      CHECK(first_difference(found.log_probs, log_probs, 1e-5) == -1);
      CHECK(first_difference(found.d_log_probs, d_log_probs, 1e-5) == -1);
      CHECK(first_difference(found.d_hidden, d_hidden, 2e-2) == -1);
      CHECK(first_difference(found.d_head, d_head, 2e-2) == -1);
    }
  };
  check(grpo{.kl = {.coefficient = 0.1}});  // one visit
  check(gspo{});                            // two
}

TEST_CASE("narrow hidden states that a device does not multiply are converted") {
  compare<simulated_device<float>, bf16>(1e-5, 1e-2);
  compare<narrow_device<>, f16>(1e-5, 2e-3);
  compare<narrow_device<>, float, bf16>(1e-5, 1e-5);
}

TEST_CASE("rows that are not finite get gradient 0 and reach no other row") {
  problem<float, float> p;
  p.batch.mask.assign(p.batch.mask.size(), 1);
  p.batch.denominators = denominators_of(p.batch.view());
  p.hidden = random_values<float>(15 * width, 3);
  p.hidden[3 * width] = std::numeric_limits<float>::quiet_NaN();
  p.hidden[8 * width + 2] = std::numeric_limits<float>::infinity();
  auto const found = on_device_of<true, simulated_device<float>>(bonus_gspo{}, p, 6);
  auto const expected = on_host<true>(bonus_gspo{}, p);
  CHECK(found.result.metrics.nonfinite_tokens == 2);
  CHECK(first_difference(found.d_hidden, expected.d_hidden, 1e-5) == -1);
  CHECK(first_difference(found.d_head, expected.d_head, 1e-5) == -1);
  for (float d : found.d_head) CHECK(is_finite(d));
  for (std::size_t i = 0; i < width; ++i) CHECK(found.d_hidden[3 * width + i] == 0);
}

TEST_CASE("the scratch stays within its budget; one that holds no row is refused") {
  simulated_device<float> const device;
  hidden_states<bf16> const states{{nullptr, 8192, 2048}, {nullptr, 8192, 2048}};
  frozen_head<bf16> const frozen{{nullptr, 151936, 2048}};
  narrow_device<> const narrow;
  index_t const size = device_hidden_scratch_size(narrow, states, frozen);
  CHECK(size * 4 <= 320'000'000);
  detail::device_hidden_layout<narrow_device<>, bf16, frozen_head<bf16>> const layout(states,
                                                                                      frozen);
  CHECK(layout.rows_in(size) == 512);
  detail::device_hidden_layout<narrow_device<>, bf16, frozen_head<bf16>, narrow_logits> const half(
      states, frozen);
  CHECK(half.rows_in(size) == 1024);
  CHECK(device_hidden_scratch_size(device, states, frozen) * 4 <= 320'000'000);
  CHECK(layout.rows_in(device_hidden_scratch_size(narrow, states, frozen, 1)) == 64);

  problem<float, float> const p;
  CHECK_THROWS_AS((on_device_of<false, simulated_device<float>>(grpo{}, p, 0)), shape_error);
}

TEST_CASE("arrays of the host, and a scratch that overlaps others, are refused") {
  using device_type = simulated_device<float>;
  device_type const device;
  problem<float, float> const p;
  device_batch<device_type, float> arrays(device, p.batch);
  device_outputs<device_type, float> outputs(device, 15, false);
  auto const hidden = on_device(device, p.hidden), weights = on_device(device, p.head);
  device_vector<device_type, float> d_hidden(device, 15 * width), scratch(device, 1000);
  policy_report report(device, 4);
  device.synchronize();
  auto const loss = [&](float* gradient, float const* head, vector_view<float> room) {
    policy_loss(device, grpo{},
                hidden_states<float>{{hidden.view().data, 15, width}, {gradient, 15, width}},
                frozen_head<float>{{head, vocab, width}}, arrays.view(), outputs.view(), room,
                report);
  };
  std::vector<float> host(15 * width);
  float const* const head = weights.view().data;
  CHECK_THROWS_WITH_AS(loss(host.data(), head, scratch.view()),
                       "policy_loss: d_hidden [15, 6] does not lie in memory that the backend's "
                       "device can use",
                       device_error);
  CHECK_THROWS_AS(loss(d_hidden.view().data, p.head.data(), scratch.view()), device_error);
  CHECK_THROWS_WITH_AS(loss(scratch.view().data + 8, head, scratch.view()),
                       "policy_loss: scratch [1000] overlaps d_hidden; expected memory apart for "
                       "what is written",
                       device_error);
  CHECK(device.stream().pending() == 0);
}
