// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine in the manner of llm.c and what adopting lamina does to it. The program itself fails
// unless its training works: examples.llmc_style.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "examples/llmc_style/adopt.hpp"
#include "examples/llmc_style/grpo.hpp"

namespace {

constexpr long group = 4, layer = 1;

// A model and episodes that it has answered.
struct answered_episodes {
  gpt2 model;
  episodes e;
  unsigned long random = 5;

  explicit answered_episodes(long B, gpt2_config config = {.vocab = sort_vocab,
                                                           .max_tokens = episode_tokens - 1,
                                                           .layers = 3,
                                                           .heads = 2,
                                                           .width = 8}) {
    gpt2_build(&model, config, 2);
    sorting_alloc(&e, B);
    gpt2_reserve(&model, B, e.T);
    // Away from the initial values, at which biases and norms would hide mistakes.
    for (long i = 0; i < model.param_count; ++i) {
      model.params[i] += 0.1f * (gpt2_uniform(&random) - 0.5f);
    }
    draw_prompts(&e, group, &random);
    sample_answers(&model, &e, &random);
  }
  answered_episodes(answered_episodes const&) = delete;
  answered_episodes& operator=(answered_episodes const&) = delete;
  ~answered_episodes() {
    gpt2_free(&model);
    episodes_free(&e);
  }

  std::vector<float> weights() const { return {model.params, model.params + model.param_count}; }
  std::vector<float> logits() const {
    return {model.logits, model.logits + e.B * e.T * model.config.vocab};
  }
};

// sum of direction * logits, in double.
double projection(gpt2* m, int const* tokens, std::vector<float> const& direction) {
  gpt2_forward(m, tokens);
  double sum = 0;
  for (std::size_t i = 0; i < direction.size(); ++i) {
    sum += static_cast<double>(direction[i]) * static_cast<double>(m->logits[i]);
  }
  return sum;
}

}  // namespace

TEST_CASE("the engine's gradients are central differences, tensor by tensor") {
  answered_episodes a(4);
  gpt2& m = a.model;
  std::vector<float> direction(a.logits().size());
  for (float& d : direction) d = gpt2_uniform(&a.random) - 0.5f;
  gpt2_forward(&m, a.e.inputs);
  gpt2_backward(&m, direction.data());
  for (int t = 0; t < tensor_count; ++t) {
    // Along a random direction in the tensor, all layers at once.
    std::vector<float> step(static_cast<std::size_t>(gpt2_size(&m, t)));
    double expected = 0, norm = 0;
    for (std::size_t i = 0; i < step.size(); ++i) {
      step[i] = gpt2_uniform(&a.random) - 0.5f;
      expected += static_cast<double>(step[i]) * static_cast<double>(m.grad_tensors[t][i]);
      norm += static_cast<double>(m.grad_tensors[t][i]) * static_cast<double>(m.grad_tensors[t][i]);
    }
    float const h = 2e-3f;
    std::vector<float> const saved(m.tensors[t], m.tensors[t] + gpt2_size(&m, t));
    auto const at = [&](float distance) {
      for (std::size_t i = 0; i < step.size(); ++i) {
        m.tensors[t][i] = saved[i] + distance * step[i];
      }
      double const value = projection(&m, a.e.inputs, direction);
      std::copy(saved.begin(), saved.end(), m.tensors[t]);
      return value;
    };
    double const difference = (at(h) - at(-h)) / (2 * static_cast<double>(h));
    INFO(gpt2_names[t].name, ": ", difference, " against ", expected);
    CHECK(norm > 0);
    CHECK(std::abs(difference - expected) < 2e-3 * std::sqrt(norm) + 1e-3);
  }
}

TEST_CASE("backward under a plan gives a layer the bits of the engine's own backward") {
  answered_episodes a(8);
  std::vector<float> direction(a.logits().size());
  for (float& d : direction) d = gpt2_uniform(&a.random) - 0.5f;
  gpt2_forward(&a.model, a.e.inputs);
  gpt2_backward(&a.model, direction.data());

  auto const plan = lamina::plan_backward(3, lamina::single_layer(layer));
  adopted_gpt2 host(&a.model, plan);
  host.backward({direction.data(), a.e.B * a.e.T, a.model.config.vocab}, plan);
  for (std::size_t t = 0; t < layer_tensors; ++t) {
    auto const& parameter = host.parameters(layer)[t];
    INFO(parameter.name);
    REQUIRE(parameter.gradient.size == a.model.sizes[t]);
    CHECK(std::memcmp(parameter.gradient.data, a.model.grad_tensors[t] + layer * a.model.sizes[t],
                      static_cast<std::size_t>(a.model.sizes[t]) * sizeof(float)) == 0);
  }
}

TEST_CASE("lamina's loss is the one written by hand, clipped tokens included") {
  answered_episodes a(16);
  lamina::eigen_backend<float> const backend;
  lamina::grpo const grpo{.surrogate = {.clip_low = 0.2, .clip_high = 0.28}};
  long const B = a.e.B, T = a.e.T, V = a.model.config.vocab;
  // Another policy than the one that answered, by enough for ratios beyond both bounds.
  for (long i = 0; i < a.model.param_count; ++i) {
    a.model.params[i] += 0.2f * (gpt2_uniform(&a.random) - 0.5f);
  }
  gpt2_forward(&a.model, a.e.inputs);
  std::vector<float> by_hand = a.logits(), by_lamina = a.logits();

  std::vector<float> advantages(static_cast<std::size_t>(B));
  group_advantages(advantages.data(), a.e.rewards, B, group);
  auto const expected = grpo.advantages(lamina::vector_view<float const>(a.e.rewards, B),
                                        lamina::prompt_groups::uniform(B, group));
  for (std::size_t b = 0; b < advantages.size(); ++b) {
    CHECK(std::abs(advantages[b] - expected.values[b]) < 1e-5f);
  }
  float const loss = grpo_loss(by_hand.data(), a.e.targets, a.e.answered, a.e.log_probs,
                               advantages.data(), B, T, V, 0.2f, 0.28f);

  std::vector<lamina::index_t> offsets;
  for (long b = 0; b <= B; ++b) offsets.push_back(b * T);
  lamina::policy_batch<float> batch{.offsets = offsets,
                                    .token_ids = {a.e.targets, B * T},
                                    .old_log_probs = {a.e.log_probs, B * T},
                                    .mask = {a.e.answered, B * T},
                                    .advantages = advantages};
  batch.denominators = lamina::denominators_of(batch);
  std::vector<float> log_probs(static_cast<std::size_t>(B * T)), d_log_probs(log_probs.size());
  auto const result =
      lamina::policy_loss(backend, grpo, lamina::matrix_view<float>(by_lamina.data(), B * T, V),
                          batch, {log_probs, d_log_probs});
  CHECK(result.metrics.clip_low_fraction > 0);
  CHECK(result.metrics.clip_high_fraction > 0);
  CHECK(std::abs(result.loss - static_cast<double>(loss)) < 1e-5);
  float largest = 0;
  for (std::size_t i = 0; i < by_hand.size(); ++i) {
    CHECK(std::abs(by_hand[i] - by_lamina[i]) < 1e-5f * 0.1f);
    largest = std::max(largest, std::abs(by_hand[i]));
  }
  CHECK(largest > 1e-3f);  // or the bound above would say nothing
}

TEST_CASE("a step changes the selected layer alone, which alone has gradients and state") {
  answered_episodes a(16);
  std::vector<float> const before = a.weights();
  layer_grpo grpo(&a.model, lamina::single_layer(layer), a.e, group, 0.01);
  for (int i = 0; i < 3; ++i) grpo.step(a.e);

  long layer_size = 0;
  for (int t = 0; t < layer_tensors; ++t) layer_size += a.model.sizes[t];
  long gradient_count = 0;
  for (auto const& parameter : lamina::all_parameters(grpo.model)) {
    gradient_count += parameter.gradient.size;
  }
  CHECK(gradient_count == layer_size);
  CHECK(grpo.optimizer.state().element_count() == layer_size);
  CHECK(a.model.grads == nullptr);

  std::vector<bool> trained(before.size());
  for (int t = 0; t < layer_tensors; ++t) {
    long const first = a.model.tensors[t] - a.model.params + layer * a.model.sizes[t];
    for (long i = first; i < first + a.model.sizes[t]; ++i) {
      trained[static_cast<std::size_t>(i)] = true;
    }
  }
  std::size_t moved = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    bool const same = std::memcmp(&before[i], &a.model.params[i], sizeof(float)) == 0;
    if (!trained[i]) CHECK(same);
    moved += same ? 0 : 1;
  }
  CHECK(moved > static_cast<std::size_t>(layer_size) / 2);
}

TEST_CASE("several layers train under one plan, the lowest as the stop layer") {
  answered_episodes a(16);
  std::vector<float> const before = a.weights();
  lamina::layer_set layers;
  layers.insert(0).insert(2);
  layer_grpo grpo(&a.model, layers, a.e, group, 0.01);
  grpo.step(a.e);
  auto const changed = [&](int t, long l) {
    long const first = a.model.tensors[t] - a.model.params + l * a.model.sizes[t];
    return std::memcmp(before.data() + first, a.model.params + first,
                       static_cast<std::size_t>(a.model.sizes[t]) * sizeof(float)) != 0;
  };
  for (int t = 0; t < layer_tensors; ++t) {
    CHECK(changed(t, 0));
    CHECK(!changed(t, 1));
    CHECK(changed(t, 2));
  }
  for (int t = layer_tensors; t < tensor_count; ++t) CHECK(!changed(t, 0));
}

TEST_CASE("an episode that does not fit the trainer is refused before anything changes") {
  answered_episodes a(16), fewer(8);
  layer_grpo grpo(&a.model, lamina::single_layer(layer), a.e, group, 0.01);
  std::vector<float> const before = a.weights();
  CHECK_THROWS_AS(grpo.step(fewer.e), lamina::shape_error);
  a.e.targets[a.e.T - 1] = static_cast<int>(sort_vocab);  // no such token
  CHECK_THROWS_AS(grpo.step(a.e), lamina::error);
  CHECK(a.weights() == before);
}
