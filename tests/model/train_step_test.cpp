// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/model/train_step.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "lamina/layers/selection_text.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/optim/audit.hpp"
#include "lamina/policy/presets.hpp"
#include "tests/support/typed_backends.hpp"
#include "tests/support/minimal_model.hpp"
#include "tests/support/random_batch.hpp"

using namespace lamina;
using testing::minimal_model;
using testing::owned_batch;

namespace {

index_t const vocab = 6;

template <class T>
struct problem {
  explicit problem(std::uint64_t seed) : batch(testing::random_batch<T>(seed, 8, vocab)) {
    counter_generator random(seed + 5);
    for (index_t t = 0; t < batch.tokens(); ++t) {
      prompts.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(vocab))));
    }
    log_probs.resize(prompts.size());
    d_log_probs.resize(prompts.size());
  }
  policy_outputs<T> outputs() {
    policy_outputs<T> result;
    result.log_probs = log_probs;
    result.d_log_probs = d_log_probs;
    return result;
  }
  owned_batch<T> batch;
  std::vector<std::int32_t> prompts;
  std::vector<T> log_probs, d_log_probs;
};

}  // namespace

TEST_CASE_TEMPLATE("one step moves the selection and leaves every other bit alone", Backend,
                   LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  for (index_t layer = 0; layer < 4; ++layer) {
    minimal_model<T> model(4, vocab);
    auto const plan = plan_backward(4, single_layer(layer));
    problem<T> p(17);
    Backend const backend{};
    adamw optimizer(backend, trained_parameters(model, plan), {.learning_rate = 1e-2});
    weight_snapshot const before(all_parameters(model));
    auto const result =
        train_step(backend, model, grpo{}, plan, p.prompts, p.batch.view(), p.outputs(), optimizer);
    CHECK(result.policy.metrics.active_tokens == p.batch.denominators.tokens);
    CHECK(result.optimizer.gradient_norm > 0);
    CHECK(audit(before, all_parameters(model), plan).passed());
  }
}

TEST_CASE("the gradient that reaches a layer is that of the loss, by central differences") {
  eigen_backend<double> const backend;
  grpo const estimator{.kl = {.coefficient = 0.05}};
  minimal_model<double> model(3, vocab);
  problem<double> p(3);
  auto const full = plan_backward(3, all_layers(3), {.embeddings = true});
  auto const loss = [&] {
    auto const logits = model.forward(p.prompts, full);
    return policy_loss(backend, estimator, logits, p.batch.view(), p.outputs()).loss;
  };
  for (auto const& plan :
       {full, plan_backward(3, single_layer(1)), plan_backward(3, {}, {.embeddings = true})}) {
    auto const parameters = trained_parameters(model, plan);
    auto const logits = model.forward(p.prompts, plan);
    policy_loss(backend, estimator, logits, p.batch.view(), p.outputs());
    model.backward(logits, plan);
    std::vector<std::vector<double>> gradients;
    for (auto const& parameter : parameters) {
      gradients.emplace_back(parameter.gradient.begin(), parameter.gradient.end());
    }
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      for (index_t e = 0; e < parameters[i].weight.size; ++e) {
        double& w = parameters[i].weight[e];
        double const at = w, h = 1e-6;
        w = at + h;
        double const above = loss();
        w = at - h;
        double const below = loss();
        w = at;
        CHECK(std::abs(gradients[i][static_cast<std::size_t>(e)] - (above - below) / (2 * h)) <
              5e-9);
      }
    }
  }
}

TEST_CASE("a full selection takes the step of ordinary training, bit for bit") {
  eigen_backend<float> const backend;
  problem<float> p(9);
  auto const weights_after = [&](backward_plan const& plan) {
    minimal_model<float> model(3, vocab);
    adamw optimizer(backend, trained_parameters(model, plan), {.learning_rate = 1e-2});
    for (int step = 0; step < 3; ++step) {
      train_step(backend, model, grpo{}, plan, p.prompts, p.batch.view(), p.outputs(), optimizer);
    }
    return model.weights();
  };
  auto const all = plan_backward(3, all_layers(3));
  CHECK(weights_after(all) == weights_after(plan_backward(3, parse_layers("0,1-2", 3))));
  // And the gradient of one layer does not depend on what else is trained.
  minimal_model<float> together(3, vocab), alone(3, vocab);
  auto const single = plan_backward(3, single_layer(1));
  for (auto* model : {&together, &alone}) {
    auto const& plan = model == &together ? all : single;
    auto const logits = model->forward(p.prompts, plan);
    policy_loss(backend, grpo{}, logits, p.batch.view(), p.outputs());
    model->backward(logits, plan);
  }
  CHECK(together.gradients()[1] == alone.gradients()[1]);
}

TEST_CASE("steps raise the advantage-weighted likelihood") {
  eigen_backend<float> const backend;
  using estimator = policy_gradient<group_relative<>, on_policy_ratio, ppo_clip, no_kl, token_mean>;
  minimal_model<float> model(4, vocab);
  auto const plan = plan_backward(4, middle_layers(4, 2));
  problem<float> p(29);
  adamw optimizer(backend, trained_parameters(model, plan), {.learning_rate = 1e-2});
  auto const weighted_likelihood = [&] {
    double sum = 0;
    for (index_t t = 0; t < p.batch.tokens(); ++t) {
      auto const s = static_cast<std::size_t>(t);
      if (!p.batch.mask[s]) continue;
      auto const i = static_cast<std::size_t>(p.batch.view().sequence_of(t));
      sum += static_cast<double>(p.batch.advantages[i] * p.log_probs[s]);
    }
    return sum;
  };
  double first = 0;
  for (int step = 0; step < 30; ++step) {
    train_step(backend, model, estimator{}, plan, p.prompts, p.batch.view(), p.outputs(), optimizer,
               1e-2);
    if (step == 0) first = weighted_likelihood();
  }
  CHECK(weighted_likelihood() > first + 0.1);
}

TEST_CASE("a bad batch throws and leaves the weights") {
  eigen_backend<float> const backend;
  minimal_model<float> model(3, vocab);
  auto const plan = plan_backward(3, single_layer(1));
  problem<float> p(5);
  adamw optimizer(backend, trained_parameters(model, plan), {.learning_rate = 1e-2});
  auto const before = model.weights();
  auto batch = p.batch.view();
  batch.denominators = {};
  CHECK_THROWS_AS(
      train_step(backend, model, grpo{}, plan, p.prompts, batch, p.outputs(), optimizer),
      config_error);
  CHECK(model.weights() == before);
}

TEST_CASE_TEMPLATE("a step from the cached prefix is the step from the tokens, bit for bit",
                   Backend, LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  Backend const backend{};
  auto const plan = plan_backward(5, single_layer(3));
  testing::minimal_prefix_model<T> plain(5, vocab), cached(5, vocab);
  problem<T> p(31), q(31);
  adamw plain_optimizer(backend, trained_parameters(plain, plan), {.learning_rate = 1e-2});
  adamw cached_optimizer(backend, trained_parameters(cached, plan), {.learning_rate = 1e-2});
  prefix_cache cache(cached, plan);
  auto const prefix = cache.fill(cached, q.prompts);
  for (int epoch = 0; epoch < 3; ++epoch) {
    auto const expected = train_step(backend, plain, grpo{}, plan, p.prompts, p.batch.view(),
                                     p.outputs(), plain_optimizer);
    auto const result = train_step(backend, cached, grpo{}, plan, prefix, q.prompts, q.batch.view(),
                                   q.outputs(), cached_optimizer, 1e-2);
    CHECK(result.policy.loss == expected.policy.loss);
    CHECK(result.optimizer.gradient_norm == expected.optimizer.gradient_norm);
    CHECK(q.log_probs == p.log_probs);
  }
  CHECK(cached.weights() == plain.weights());
  CHECK(cached.layer_runs == 3 + 3 * 2);
}

TEST_CASE("a step that trains below the cached rows makes them unusable") {
  eigen_backend<float> const backend;
  auto const high = plan_backward(5, single_layer(3)), low = plan_backward(5, single_layer(1));
  testing::minimal_prefix_model<float> model(5, vocab);
  problem<float> p(31);
  prefix_cache cache(model, high);
  auto const prefix = cache.fill(model, p.prompts);
  adamw high_optimizer(backend, trained_parameters(model, high), {.learning_rate = 1e-2});
  adamw low_optimizer(backend, trained_parameters(model, low), {.learning_rate = 1e-2});
  auto const step = [&](backward_plan const& plan, auto& optimizer) {
    return train_step(backend, model, grpo{}, plan, prefix, p.prompts, p.batch.view(), p.outputs(),
                      optimizer);
  };
  step(high, high_optimizer);
  auto const before = model.weights();
  CHECK_THROWS_AS(step(low, low_optimizer), config_error);  // this plan needs another cache
  CHECK(model.weights() == before);
  train_step(backend, model, grpo{}, low, p.prompts, p.batch.view(), p.outputs(), low_optimizer);
  auto const moved = model.weights();
  CHECK_THROWS_AS(step(high, high_optimizer), config_error);  // stale
  CHECK(model.weights() == moved);
}
