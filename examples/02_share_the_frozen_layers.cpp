// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One pass through the frozen layers serves the old policy, the reference and every epoch, and the
// reference costs a copy of the one layer that is trained. The task: answer token t with t + 1.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "lamina/backend/eigen.hpp"
#include "lamina/lamina.hpp"

constexpr std::size_t vocab = 10;

/// The engine of example 01 that can also stop before a layer and go on from there: every layer
/// adds one row of a table to the stream, and what leaves the last one is the logits.
struct table_engine {
  using batch_type = std::vector<std::int32_t>;  // one prompt token a row

  lamina::index_t layer_count() const { return 8; }
  std::vector<lamina::parameter_view<float>> parameters(lamina::index_t layer) {
    auto const k = std::size_t(layer);
    return {{names[k], layer, lamina::parameter_role::mlp_up, tables[k], gradients[k]}};
  }
  lamina::matrix_view<float const> forward_prefix(batch_type const& batch, lamina::index_t layer) {
    tokens = batch;
    stream.assign(batch.size() * vocab, 0.0f);
    return run(0, layer);
  }
  lamina::matrix_view<float> forward_suffix(batch_type const& batch, lamina::index_t layer,
                                            lamina::matrix_view<float const> from,
                                            lamina::backward_plan const&) {
    tokens = batch;
    stream.assign(from.data, from.data + from.rows * from.cols);
    return run(layer, layer_count());
  }
  lamina::matrix_view<float> forward(batch_type const& batch, lamina::backward_plan const&) {
    forward_prefix(batch, 0);
    return run(0, layer_count());
  }
  void backward(lamina::matrix_view<float const> d_logits, lamina::backward_plan const& plan) {
    auto& gradient = gradients[std::size_t(plan.layers().lowest())];  // one layer is trained
    gradient.assign(vocab * vocab, 0.0f);
    for (std::size_t i = 0; i < stream.size(); ++i) gradient[cell(i)] += d_logits.data[i];
  }
  lamina::matrix_view<float> run(lamina::index_t first, lamina::index_t last) {
    for (lamina::index_t k = first; k < last; ++k, ++layer_runs) {
      for (std::size_t i = 0; i < stream.size(); ++i) stream[i] += tables[std::size_t(k)][cell(i)];
    }
    return {stream.data(), lamina::index_t(tokens.size()), vocab};
  }
  std::size_t cell(std::size_t i) const {
    return std::size_t(tokens[i / vocab]) * vocab + i % vocab;
  }
  std::vector<std::vector<float>> tables{8, std::vector<float>(vocab*vocab)}, gradients = tables;
  std::string names[8] = {"0", "1", "2", "3", "4", "5", "6", "7"};
  std::vector<float> stream;
  std::vector<std::int32_t> tokens;
  int layer_runs = 0;
};

int main() {
  constexpr lamina::index_t rows = 80;
  table_engine model;
  lamina::counter_generator random(7);
  std::vector<std::int32_t> prompts, answers(80);
  std::vector<lamina::index_t> offsets{0};
  for (int row = 0; row < rows; ++row) prompts.push_back(row / 8), offsets.push_back(row + 1);
  std::vector<float> rewards(80), old_log_probs(80), reference_log_probs(80), log_probs(80),
      d_log_probs(80);
  bool on_policy = true;
  auto const sample = [&](lamina::matrix_view<float> logits) {
    for (std::size_t row = 0; row < 80; ++row) {
      float* const noisy = logits.data + row * vocab;
      for (float* z = noisy; z < noisy + vocab; ++z)
        *z -= float(std::log(-std::log(random.uniform())));
      answers[row] = std::int32_t(std::max_element(noisy, noisy + vocab) - noisy);
      rewards[row] = answers[row] == (prompts[row] + 1) % 10;
    }
  };

  // [share]
  lamina::eigen_backend<float> const backend;
  auto const plan = lamina::plan_backward(8, lamina::single_layer(6));
  lamina::grpo const grpo{.kl = {.coefficient = 0.001}};
  lamina::adamw optimizer(backend, lamina::trained_parameters(model, plan),
                          {.learning_rate = 0.05, .weight_decay = 0});
  lamina::frozen_copy reference(model, plan);  // a copy of layer 6 and of nothing else
  lamina::prefix_cache cache(model, plan);     // [tokens, width], what enters layer 6
  auto const score = [&](auto const& prefix, std::vector<float>& out) {
    lamina::token_log_probs(backend, prefix.forward(model, prompts, plan), answers, {}, 1.0, out);
  };
  for (int batch = 0; batch < 30; ++batch) {
    auto const prefix = cache.fill(model, prompts);  // layers 0 to 5 run here, and nowhere else
    sample(prefix.forward(model, prompts, plan));
    score(prefix, old_log_probs);
    reference.with(model, [&] { score(prefix, reference_log_probs); });
    auto const advantages = grpo.advantages(rewards, lamina::prompt_groups::uniform(rows, 8));
    for (int epoch = 0; epoch < 2; ++epoch) {
      auto const result = lamina::train_step(backend, model, grpo, plan, prefix, prompts,
                                             {.offsets = offsets,
                                              .token_ids = answers,
                                              .old_log_probs = old_log_probs,
                                              .reference_log_probs = reference_log_probs,
                                              .advantages = advantages.values,
                                              .denominators = {.sequences = rows, .tokens = rows}},
                                             {log_probs, d_log_probs}, optimizer);
      if (epoch == 0 && result.policy.metrics.ratio_max != 1) on_policy = false;
    }
  }
  // [/share]

  auto const right = std::count(rewards.begin(), rewards.end(), 1.0f);
  std::printf("%d of 80 answers right; ratios of first epochs exactly 1: %s\n", int(right),
              on_policy ? "yes" : "no");
  std::printf("layers run: %d, without sharing %d; reference: %d of 800 weights\n",
              model.layer_runs, 30 * 5 * 8, int(reference.element_count()));
  return right > 48 && on_policy && model.layer_runs == 30 * (6 + 5 * 2) ? 0 : 1;
}
