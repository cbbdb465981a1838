// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The GRPO loss that the engine's author wrote by hand: what lamina takes the place of, and what
// the benchmark holds it against.
#pragma once

#include "examples/llmc_style/sorting.hpp"

// advantages[B]: rewards relative to the other episodes of their prompt, over their deviation.
inline void group_advantages(float* advantages, float const* rewards, long B, long group) {
  for (long first = 0; first < B; first += group) {
    float mean = 0, square = 0;
    for (long b = first; b < first + group; ++b) mean += rewards[b] / static_cast<float>(group);
    for (long b = first; b < first + group; ++b)
      square += (rewards[b] - mean) * (rewards[b] - mean);
    float const deviation = std::sqrt(square / static_cast<float>(group - 1));
    for (long b = first; b < first + group; ++b) {
      advantages[b] = (rewards[b] - mean) / (deviation + 1e-6f);
    }
  }
}

// The clipped loss, a mean over the tokens of an answer and then over answers; logits[B, T, V]
// become its gradient. Rows with mask 0 have none.
inline float grpo_loss(float* logits, int const* targets, unsigned char const* mask,
                       float const* old_log_probs, float const* advantages, long B, long T, long V,
                       float clip_low, float clip_high) {
  float loss = 0;
  for (long b = 0; b < B; ++b) {
    long count = 0;
    for (long t = 0; t < T; ++t) count += mask[b * T + t];
    float const weight = 1.0f / static_cast<float>(B * (count > 0 ? count : 1));
    float const advantage = advantages[b];
    for (long t = 0; t < T; ++t) {
      long const row = b * T + t;
      float* const z = logits + row * V;
      if (!mask[row]) {
        std::memset(z, 0, static_cast<size_t>(V) * sizeof(float));
        continue;
      }
      float const chosen = z[targets[row]];
      float peak = z[0];
      for (long v = 1; v < V; ++v) peak = z[v] > peak ? z[v] : peak;
      float sum = 0;
      for (long v = 0; v < V; ++v) {
        z[v] = std::exp(z[v] - peak);
        sum += z[v];
      }
      float const log_prob = chosen - peak - std::log(sum);
      float const ratio = std::exp(log_prob - old_log_probs[row]);
      float const bounded = ratio < 1 - clip_low    ? 1 - clip_low
                            : ratio > 1 + clip_high ? 1 + clip_high
                                                    : ratio;
      bool const clipped = bounded * advantage < ratio * advantage;
      loss -= weight * advantage * (clipped ? bounded : ratio);
      float const slope = clipped ? 0 : weight * advantage * ratio;  // of minus the loss
      float const factor = slope / sum;
      for (long v = 0; v < V; ++v) z[v] *= factor;
      z[targets[row]] -= slope;
    }
  }
  return loss;
}
