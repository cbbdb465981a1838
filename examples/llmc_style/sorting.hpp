// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine's own trainer: a task with a verifier, sampling, and cross-entropy on demonstrations.
//
// The task: three digits are to be answered with the same digits, largest first. Demonstrations
// answer in any order, so that a pretrained model knows which digits, not in which order.
#pragma once

#include <algorithm>

#include "examples/llmc_style/gpt2.hpp"

inline constexpr long digits = 3, episode_tokens = 2 * digits, sort_vocab = 10;

// B episodes of T inputs; row b, t of `targets` follows row b, t of `inputs`.
struct episodes {
  long B, T;
  int *inputs, *targets;    // [B, T]
  unsigned char* answered;  // [B, T] 1 where the target belongs to the answer
  float* log_probs;         // [B, T] of the targets, as sampled
  float* rewards;           // [B]
};

inline void episodes_alloc(episodes* e, long B, long T) {
  auto const count = static_cast<size_t>(B * T);
  e->B = B, e->T = T;
  e->inputs = static_cast<int*>(std::calloc(count, sizeof(int)));
  e->targets = static_cast<int*>(std::calloc(count, sizeof(int)));
  e->answered = static_cast<unsigned char*>(std::calloc(count, 1));
  e->log_probs = gpt2_alloc(B * T);
  e->rewards = gpt2_alloc(B);
}

// Room for B sorting episodes.
inline void sorting_alloc(episodes* e, long B) {
  episodes_alloc(e, B, episode_tokens - 1);
  for (long i = 0; i < B * e->T; ++i) e->answered[i] = i % e->T >= digits - 1;
}

inline void episodes_free(episodes* e) {
  std::free(e->inputs), std::free(e->targets), std::free(e->answered);
  std::free(e->log_probs), std::free(e->rewards);
}

// Puts a token into its places: position t is target of row t - 1 and input of row t.
inline void episodes_put(episodes* e, long b, long position, int token) {
  if (position > 0) e->targets[b * e->T + position - 1] = token;
  if (position < e->T) e->inputs[b * e->T + position] = token;
}

inline int episodes_get(episodes const* e, long b, long position) {
  return position > 0 ? e->targets[b * e->T + position - 1] : e->inputs[b * e->T];
}

// New prompts, `group` episodes to each.
inline void draw_prompts(episodes* e, long group, unsigned long* random) {
  for (long b = 0; b < e->B; ++b) {
    for (long i = 0; i < digits; ++i) {
      episodes_put(e, b, i,
                   b % group
                       ? episodes_get(e, b - 1, i)
                       : static_cast<int>(gpt2_uniform(random) * static_cast<float>(sort_vocab)));
    }
  }
}

// The verifier: the share of places with the right digit.
inline float sorting_reward(int const* prompt, int const* answer) {
  int sorted[digits];
  std::copy(prompt, prompt + digits, sorted);
  std::sort(sorted, sorted + digits, [](int a, int b) { return a > b; });
  int right = 0;
  for (int i = 0; i < digits; ++i) right += answer[i] == sorted[i];
  return static_cast<float>(right) / static_cast<float>(digits);
}

inline float sample_answers(gpt2* m, episodes* e, unsigned long* random) {
  long const T = e->T, V = m->config.vocab;
  for (long position = digits; position < episode_tokens; ++position) {
    gpt2_forward(m, e->inputs);
    for (long b = 0; b < e->B; ++b) {
      long const row = b * T + position - 1;
      float const* const z = m->logits + row * V;
      float const peak = *std::max_element(z, z + V);
      float sum = 0;
      for (long v = 0; v < V; ++v) sum += std::exp(z[v] - peak);
      float left = gpt2_uniform(random) * sum;
      long token = 0;
      while (token < V - 1 && (left -= std::exp(z[token] - peak)) >= 0) ++token;
      episodes_put(e, b, position, static_cast<int>(token));
      e->log_probs[row] = z[token] - peak - std::log(sum);
    }
  }
  float mean = 0;
  for (long b = 0; b < e->B; ++b) {
    int tokens[episode_tokens];
    for (long i = 0; i < episode_tokens; ++i) tokens[i] = episodes_get(e, b, i);
    e->rewards[b] = sorting_reward(tokens, tokens + digits);
    mean += e->rewards[b] / static_cast<float>(e->B);
  }
  return mean;
}

// One step of SGD on fresh demonstrations; returns the cross-entropy. Turns logits into gradients.
inline float pretrain_step(gpt2* m, episodes* e, float learning_rate, unsigned long* random) {
  long const V = m->config.vocab;
  draw_prompts(e, 1, random);
  for (long b = 0; b < e->B; ++b) {
    int answer[digits];
    for (long i = 0; i < digits; ++i) answer[i] = episodes_get(e, b, i);
    for (long i = digits - 1; i > 0; --i) {
      std::swap(answer[i],
                answer[static_cast<long>(gpt2_uniform(random) * static_cast<float>(i + 1))]);
    }
    for (long i = 0; i < digits; ++i) episodes_put(e, b, digits + i, answer[i]);
  }
  gpt2_forward(m, e->inputs);
  float loss = 0;
  float const weight = 1.0f / static_cast<float>(e->B * digits);
  for (long row = 0; row < e->B * e->T; ++row) {
    float* const z = m->logits + row * V;
    if (!e->answered[row]) {
      gpt2_zero(z, V);
      continue;
    }
    float const peak = *std::max_element(z, z + V), chosen = z[e->targets[row]];
    float sum = 0;
    for (long v = 0; v < V; ++v) sum += z[v] = std::exp(z[v] - peak);
    for (long v = 0; v < V; ++v) z[v] *= weight / sum;
    z[e->targets[row]] -= weight;
    loss -= weight * (chosen - peak - std::log(sum));
  }
  gpt2_backward(m, m->logits);
  gpt2_sgd(m, learning_rate);
  return loss;
}
