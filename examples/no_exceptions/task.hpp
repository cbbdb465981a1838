// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine's trainer: a task with a verifier, sampling, and SGD on demonstrations.
//
// The task: of four symbols one occurs twice; name it. Demonstrations name any of the four.
#pragma once

#include "examples/no_exceptions/model.hpp"

namespace engine {

inline constexpr long prompt_tokens = 4, symbol_count = 12;

/// Questions with an answer of one token each.
struct episodes {
  long count;
  int* prompts;      // [count, prompt_tokens]
  int* answers;      // [count]
  float* log_probs;  // [count] of the answers, as sampled
  float* rewards;    // [count]
};

inline episodes make_episodes(runtime* host, long count) {
  return {count, host->memory.take<int>(count * prompt_tokens), host->memory.take<int>(count),
          host->memory.take<float>(count), host->memory.take<float>(count)};
}

inline int below(int bound, unsigned long* random) {
  return static_cast<int>(uniform(random) * static_cast<float>(bound));
}

/// New questions, each `group` times.
inline void ask(episodes* e, long group, unsigned long* random) {
  for (long i = 0; i < e->count; ++i) {
    int* const prompt = e->prompts + i * prompt_tokens;
    if (i % group != 0) {
      std::memcpy(prompt, prompt - prompt_tokens, prompt_tokens * sizeof(int));
      continue;
    }
    for (long k = 0; k < prompt_tokens;) {  // all different
      prompt[k] = below(symbol_count, random);
      bool fresh = true;
      for (long j = 0; j < k; ++j) fresh = fresh && prompt[j] != prompt[k];
      k += fresh;
    }
    int const from = below(prompt_tokens, random);
    prompt[(from + 1 + below(prompt_tokens - 1, random)) % prompt_tokens] = prompt[from];
  }
}

/// The verifier.
inline float verify(int const* prompt, int answer) {
  long count = 0;
  for (long k = 0; k < prompt_tokens; ++k) count += prompt[k] == answer;
  return count == 2 ? 1.0f : 0.0f;
}

inline float peak_of(float const* z) {
  float peak = z[0];
  for (long v = 1; v < symbol_count; ++v) peak = z[v] > peak ? z[v] : peak;
  return peak;
}

/// Samples the answers; returns the mean reward.
inline float answer(model* m, episodes* e, unsigned long* random) {
  forward_logits(m, e->prompts);
  float mean = 0;
  for (long i = 0; i < e->count; ++i) {
    float const* const z = m->logits.row(i);
    float const peak = peak_of(z);
    float sum = 0;
    for (long v = 0; v < symbol_count; ++v) sum += std::exp(z[v] - peak);
    float left = uniform(random) * sum;
    int token = 0;
    while (token < symbol_count - 1 && (left -= std::exp(z[token] - peak)) >= 0) ++token;
    e->answers[i] = token;
    e->log_probs[i] = z[token] - peak - std::log(sum);
    e->rewards[i] = verify(e->prompts + i * prompt_tokens, token);
    mean += e->rewards[i] / static_cast<float>(e->count);
  }
  return mean;
}

/// SGD on demonstrations, all weights. Gradients and activations are given back at the end.
inline void pretrain(model* m, int steps, long batch, float learning_rate, unsigned long* random) {
  arena& memory = m->host->memory;
  std::size_t const mark = memory.used();
  for_each_tensor(*m, [m](tensor& t) { t.gradient = m->host->make_like(t.weight); });
  reserve(m, batch, 0);
  episodes e = make_episodes(m->host, batch);
  for (int step = 0; step < steps; ++step) {
    ask(&e, 1, random);
    for_each_tensor(*m, [](tensor& t) { clear(t.gradient); });
    forward_logits(m, e.prompts);
    for (long i = 0; i < batch; ++i) {  // logits become the gradient of the cross-entropy
      float* const z = m->logits.row(i);
      float const peak = peak_of(z);
      float sum = 0;
      for (long v = 0; v < symbol_count; ++v) sum += z[v] = std::exp(z[v] - peak);
      for (long v = 0; v < symbol_count; ++v) z[v] /= sum * static_cast<float>(batch);
      z[e.prompts[i * prompt_tokens + below(prompt_tokens, random)]] -=
          1 / static_cast<float>(batch);
    }
    product(*m->host, true, false, 1, m->logits, m->normed, 1, m->head.gradient);
    product(*m->host, false, false, 1, m->logits, m->head.weight, 0, m->d_last);
    norm_backward(m, m->d_last);
    for (long l = m->size.layers - 1; l >= 0; --l) layer_backward(m, l, true);
    for (long r = 0; r < m->rows; ++r) {
      for (long c = 0; c < m->size.width; ++c) {
        m->embedding.gradient.row(m->tokens[r])[c] += m->d_stream.row(r)[c];
        m->positions.gradient.row(r % prompt_tokens)[c] += m->d_stream.row(r)[c];
      }
    }
    for_each_tensor(*m, [&](tensor& t) {
      for (long i = 0; i < t.weight.size(); ++i)
        t.weight.data[i] -= learning_rate * t.gradient.data[i];
    });
  }
  for_each_tensor(*m, [](tensor& t) { t.gradient = {}; });
  memory.release(mark);
}

}  // namespace engine
