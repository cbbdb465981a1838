// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the host engine does with its transformer: it learns to sort digits from examples, samples
// answers, checks them. It knows nothing of lamina.
#pragma once

#include <torch/torch.h>

#include <cstdint>

#include "examples/libtorch/transformer.hpp"

namespace libtorch {

/// Digits in a prompt; the answer is as long.
inline constexpr std::int64_t answer_length = 4;

/// Sampled answers to prompts, those to one prompt side by side.
struct rollouts {
  torch::Tensor tokens;     ///< [sequences, 2 * answer_length] prompt and answer
  torch::Tensor log_probs;  ///< [sequences, answer_length] of the answer under who sampled it
  torch::Tensor rewards;    ///< [sequences] 1 if the answer is the prompt in order, else 0
};

/// `count` prompts of random digits: [count, answer_length].
inline torch::Tensor random_prompts(std::int64_t count) {
  return torch::randint(10, {count, answer_length}, torch::kLong);
}

/// The answer's part of [sequences, 2 * answer_length] tokens.
inline torch::Tensor answers_of(torch::Tensor const& tokens) {
  return tokens.slice(1, answer_length);
}

/// Logits [sequences, answer_length, vocab] of the answer's tokens.
inline torch::Tensor answer_logits(transformer& model, torch::Tensor const& tokens) {
  return model(tokens.slice(1, 0, -1), answer_length - 1);
}

/// Log-probs [sequences, answer_length] of the answer's tokens.
inline torch::Tensor answer_log_probs(transformer& model, torch::Tensor const& tokens) {
  auto const all = answer_logits(model, tokens).log_softmax(-1);
  return all.gather(-1, answers_of(tokens).unsqueeze(-1)).squeeze(-1);
}

/// `group_size` answers to each prompt, at temperature 1.
inline rollouts sample(transformer& model, torch::Tensor const& prompts, std::int64_t group_size) {
  torch::NoGradGuard const no_grad;
  auto const asked = prompts.repeat_interleave(group_size, 0);
  auto tokens = asked;
  for (std::int64_t t = 0; t < answer_length; ++t) {
    auto const next = model(tokens, tokens.size(1) - 1).squeeze(1).softmax(-1);
    tokens = torch::cat({tokens, next.multinomial(1)}, 1);
  }
  auto const sorted = std::get<0>(asked.sort(-1));
  return {tokens, answer_log_probs(model, tokens),
          (answers_of(tokens) == sorted).all(-1).to(torch::kFloat)};
}

/// Mean reward of one answer to each prompt.
inline double mean_reward(transformer& model, torch::Tensor const& prompts) {
  return sample(model, prompts, 1).rewards.mean().item<double>();
}

/// Learns from examples, all weights, until it sorts now and then.
inline void learn_from_examples(transformer& model, int step_count) {
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(3e-3));
  for (int step = 0; step < step_count; ++step) {
    auto const prompts = random_prompts(64);
    auto const tokens = torch::cat({prompts, std::get<0>(prompts.sort(-1))}, 1);
    optimizer.zero_grad();
    answer_log_probs(model, tokens).mean().neg().backward();
    optimizer.step();
  }
}

}  // namespace libtorch
