// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An engine of thirty lines adopts lamina: GRPO trains the two middle layers of four and leaves
// every other bit as it was. The task: answer token t with token t + 1.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "lamina/backend/eigen.hpp"
#include "lamina/lamina.hpp"

/// The host, its memory and its own forward and backward pass: every layer adds one row of a table,
/// logits = sum_k table_k[token].
struct table_engine {
  using batch_type = std::vector<std::int32_t>;  // one prompt token a row

  table_engine(std::size_t layers, std::size_t vocab_size)
      : vocab(vocab_size),
        tables(layers, std::vector<float>(vocab * vocab)),
        gradients(layers, std::vector<float>(vocab * vocab)) {
    for (std::size_t k = 0; k < layers; ++k) names.push_back("layers." + std::to_string(k));
  }

  lamina::index_t layer_count() const { return static_cast<lamina::index_t>(tables.size()); }
  std::vector<lamina::parameter_view<float>> parameters(lamina::index_t layer) {
    auto const k = static_cast<std::size_t>(layer);
    return {{names[k], layer, lamina::parameter_role::mlp_up, tables[k], gradients[k]}};
  }
  lamina::matrix_view<float> forward(batch_type const& batch, lamina::backward_plan const&) {
    tokens = batch;
    logits.assign(batch.size() * vocab, 0.0f);
    for (auto const& table : tables) {
      for (std::size_t i = 0; i < logits.size(); ++i) logits[i] += table[cell(i)];
    }
    return {logits.data(), static_cast<lamina::index_t>(batch.size()),
            static_cast<lamina::index_t>(vocab)};
  }
  void backward(lamina::matrix_view<float const> d_logits, lamina::backward_plan const& plan) {
    for (lamina::index_t layer : plan.layers()) {  // the plan says where gradients are wanted
      auto& gradient = gradients[static_cast<std::size_t>(layer)];
      std::fill(gradient.begin(), gradient.end(), 0.0f);
      for (std::size_t i = 0; i < logits.size(); ++i) gradient[cell(i)] += d_logits.data[i];
    }
  }
  std::size_t cell(std::size_t i) const {
    return static_cast<std::size_t>(tokens[i / vocab]) * vocab + i % vocab;
  }

  std::size_t vocab;
  std::vector<std::vector<float>> tables, gradients;
  std::vector<std::string> names;
  std::vector<float> logits;
  batch_type tokens;
};

/// What the host's sampler and verifier hand over: 8 answers to each prompt.
struct rollouts {
  std::vector<std::int32_t> prompts, answers;
  std::vector<lamina::index_t> offsets{0};
  std::vector<float> rewards, log_probs;
};

rollouts sample(table_engine& model, lamina::backward_plan const& plan,
                lamina::counter_generator& random) {
  rollouts r;
  for (std::int32_t prompt = 0; prompt < static_cast<std::int32_t>(model.vocab); ++prompt) {
    r.prompts.insert(r.prompts.end(), 8, prompt);
  }
  auto const logits = model.forward(r.prompts, plan);
  for (lamina::index_t row = 0; row < logits.rows; ++row) {
    auto const noisy = [&](lamina::index_t v) {
      return logits(row, v) - std::log(-std::log(random.uniform()));
    };
    lamina::index_t best = 0;
    double best_value = noisy(0);
    for (lamina::index_t v = 1; v < logits.cols; ++v) {
      if (double const value = noisy(v); value > best_value) best = v, best_value = value;
    }
    r.answers.push_back(static_cast<std::int32_t>(best));
    r.offsets.push_back(row + 1);
    r.rewards.push_back(best == (r.prompts[static_cast<std::size_t>(row)] + 1) % logits.cols);
  }
  r.log_probs.resize(r.answers.size());
  lamina::token_log_probs(lamina::eigen_backend<>{}, logits, r.answers, {}, 1.0, r.log_probs);
  return r;
}

float mean_reward(rollouts const& r) {
  float sum = 0;
  for (float reward : r.rewards) sum += reward;
  return sum / static_cast<float>(r.rewards.size());
}

int main() {
  table_engine model(4, 10);
  lamina::counter_generator random(7);
  auto const untrained = model.tables;
  float const reward_before = mean_reward(sample(model, lamina::plan_full(4), random));
  std::vector<float> log_probs(80), d_log_probs(80);

  // [adopt]
  lamina::eigen_backend<float> const backend;
  auto const layers = lamina::middle_layers(model.layer_count(), 2);  // or parse_layers("1-2", 4)
  auto const plan = lamina::plan_backward(model.layer_count(), layers);
  lamina::grpo const grpo{.surrogate = {.clip_low = 0.2, .clip_high = 0.28}};
  lamina::adamw optimizer(backend, lamina::trained_parameters(model, plan),
                          {.learning_rate = 0.05, .weight_decay = 0});  // state for layers 1 and 2

  for (int step = 0; step < 60; ++step) {
    rollouts const r = sample(model, plan, random);
    auto const advantages = grpo.advantages(r.rewards, lamina::prompt_groups::uniform(80, 8));
    lamina::policy_batch<float> const batch{.offsets = r.offsets,
                                            .token_ids = r.answers,
                                            .old_log_probs = r.log_probs,
                                            .advantages = advantages.values,
                                            .denominators = {.sequences = 80, .tokens = 80}};
    auto const logits = model.forward(r.prompts, plan);
    lamina::policy_loss(backend, grpo, logits, batch, {log_probs, d_log_probs});
    model.backward(logits, plan);  // logits now hold d loss / d logits; stops at layer 1
    optimizer.step();
  }
  // [/adopt]

  float const reward_after = mean_reward(sample(model, plan, random));
  bool const frozen = model.tables[0] == untrained[0] && model.tables[3] == untrained[3];
  std::printf("mean reward %.2f -> %.2f, frozen layers bit-identical: %s\n", reward_before,
              reward_after, frozen ? "yes" : "no");
  return frozen && reward_after > reward_before + 0.5f ? 0 : 1;
}
