// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A whole step on a device: what the host's comes to, no waits, and nothing changed where it fails.
#include "lamina/model/train_step.hpp"

#include <doctest/doctest.h>

#include <stdexcept>

#include "lamina/backend/eigen.hpp"
#include "lamina/backend/host_copy.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/optim/audit.hpp"
#include "lamina/policy/presets.hpp"
#include "tests/optim/device_tensors.hpp"
#include "tests/support/device_batch.hpp"
#include "tests/support/device_model.hpp"
#include "tests/support/minimal_model.hpp"
#include "tests/support/simulated_device.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

index_t const vocab = 6, layers = 4;

// A model and a batch on a host and on a device, with weights of T there.
template <class Backend, class T>
struct problem {
  using number = typename Backend::scalar_type;

  Backend backend;
  owned_batch<number> batch = random_batch<number>(17, 8, vocab);
  std::vector<std::int32_t> prompts;
  minimal_prefix_model<number> host{layers, vocab};
  device_model<Backend, T> model{backend, host, vocab};
  device_batch<Backend, number> arrays{backend, batch};
  device_outputs<Backend, number> outputs{backend, batch.tokens(), false};
  device_vector<Backend, std::int32_t> ids{backend, batch.tokens()};
  policy_report<Backend> report{backend, 8};

  problem() {
    counter_generator random(22);
    for (index_t t = 0; t < batch.tokens(); ++t) {
      prompts.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(vocab))));
    }
    ids.assign(backend, prompts);
    backend.synchronize();
  }
  vector_view<std::int32_t const> tokens() const { return std::as_const(ids).view(); }
  host_copy<Backend, T> weights() { return host_copy(backend, all_parameters(model)); }
};

}  // namespace

TEST_CASE_TEMPLATE("train_step on a device: steps of the host, and every frozen bit left alone",
                   Backend, simulated_device<double>, simulated_device<double, 7, 2>,
                   simulated_device<float>, simulated_device<float, 33>) {
  using T = typename Backend::scalar_type;
  problem<Backend, T> p;
  auto const plan = plan_backward(layers, single_layer(1));
  eigen_backend<T> const host_backend;
  std::vector<T> log_probs(p.prompts.size()), d_log_probs(p.prompts.size());
  policy_outputs<T> host_outputs;
  host_outputs.log_probs = log_probs;
  host_outputs.d_log_probs = d_log_probs;
  adamw on_host(host_backend, trained_parameters(p.host, plan), {.learning_rate = 1e-2});
  adamw optimizer(p.backend, trained_parameters(p.model, plan), {.learning_rate = 1e-2});
  weight_snapshot const before(p.weights().parameters());
  double const tolerance = sizeof(T) == 8 ? 1e-10 : 1e-5;
  for (int step = 0; step < 3; ++step) {
    auto const expected = train_step(host_backend, p.host, grpo{}, plan, p.prompts, p.batch.view(),
                                     host_outputs, on_host);
    p.backend.synchronize();
    train_step(p.backend, p.model, grpo{}, plan, p.tokens(), p.arrays.view(), p.outputs.view(),
               p.report, optimizer);
    CHECK(p.backend.stream().pending() > 10);
    CHECK(p.report.read(p.backend).loss ==
          doctest::Approx(expected.policy.loss).epsilon(tolerance));
    CHECK(optimizer.read_status().gradient_norm ==
          doctest::Approx(expected.optimizer.gradient_norm).epsilon(tolerance));
  }
  auto const after = p.weights();
  CHECK(audit(before, after.parameters(), plan).passed());
  auto const host_weights = p.host.parameters(1)[0].weight;
  for (auto const& parameter : after.parameters()) {
    if (parameter.layer != 1) continue;
    for (index_t i = 0; i < vocab; ++i) {
      CHECK(parameter.weight[i] == doctest::Approx(host_weights[i]).epsilon(100 * tolerance));
    }
  }
}

TEST_CASE(
    "train_step on a device: narrow weights with masters, at a learning rate from its memory") {
  using Backend = simulated_device<float>;
  problem<Backend, bf16> p;
  auto const plan = plan_backward(layers, layer_set{}.insert(1).insert(3));
  adamw optimizer(p.backend, trained_parameters(p.model, plan));
  weight_snapshot const before(p.weights().parameters());
  double const rate = 0.05;
  device_vector<Backend, double> const rates(p.backend, vector_view<double const>(&rate, 1));
  for (int step = 0; step < 2; ++step) {
    train_step(p.backend, p.model, grpo{}, plan, p.tokens(), p.arrays.view(), p.outputs.view(),
               p.report, optimizer, rates.view());
  }
  CHECK(optimizer.read_status().learning_rate == rate);
  CHECK(optimizer.state().slot_count() == 3);
  CHECK(optimizer.state().step_count(0) == 2);
  CHECK(audit(before, p.weights().parameters(), plan).passed());
}

TEST_CASE("train_step on a device: from a cached prefix it is the same step") {
  using Backend = simulated_device<float>;
  auto const plan = plan_backward(layers, layer_range(2, 3));
  auto const weights_after = [&](bool cached) {
    problem<Backend, float> p;
    adamw optimizer(p.backend, trained_parameters(p.model, plan), {.learning_rate = 1e-2});
    prefix_cache cache(p.model, plan, in_device_memory(p.backend));
    auto const prefix = cache.fill(p.model, p.tokens());
    for (int step = 0; step < 2; ++step) {
      if (cached) {
        train_step(p.backend, p.model, grpo{}, plan, prefix, p.tokens(), p.arrays.view(),
                   p.outputs.view(), p.report, optimizer);
      } else {
        train_step(p.backend, p.model, grpo{}, plan, p.tokens(), p.arrays.view(), p.outputs.view(),
                   p.report, optimizer);
      }
    }
    std::vector<float> all;
    auto const copy = p.weights();
    for (auto const& parameter : copy.parameters()) {
      all.insert(all.end(), parameter.weight.begin(), parameter.weight.end());
    }
    return all;
  };
  CHECK(weights_after(true) == weights_after(false));
}

TEST_CASE("train_step on a device: out of memory in its middle, weights and state are as before") {
  using Backend = simulated_device<float>;
  problem<Backend, float> p, untroubled;
  auto const plan = plan_backward(layers, single_layer(1));
  auto const step = [&](auto& q, auto& optimizer) {
    train_step(q.backend, q.model, grpo{}, plan, q.tokens(), q.arrays.view(), q.outputs.view(),
               q.report, optimizer);
  };
  adamw optimizer(p.backend, trained_parameters(p.model, plan), {.learning_rate = 1e-2});
  adamw twin(untroubled.backend, trained_parameters(untroubled.model, plan),
             {.learning_rate = 1e-2});
  step(p, optimizer);
  step(untroubled, twin);
  weight_snapshot const before(p.weights().parameters());
  auto const state = remembered(optimizer);
  p.backend.synchronize();
  auto& stream = p.backend.stream();
  int failures = 0;
  for (std::size_t room = 0; room <= 4 * 4096; room += 4096) {  // a state of the model is a page
    stream.set_limit(stream.allocated() + room);
    try {
      step(p, optimizer);
    } catch (std::runtime_error const&) {
      ++failures;
    }
    CHECK(remembered(optimizer) == state);
    auto const report = audit(before, p.weights().parameters(), plan);
    CHECK(report.count(movement::selected_unmoved) == 1);
    CHECK(report.count(movement::frozen_moved) == 0);
  }
  CHECK(failures == 5);
  stream.set_limit(std::size_t{1} << 32);
  step(p, optimizer);
  step(untroubled, twin);
  CHECK(remembered(optimizer) == remembered(twin));
}
