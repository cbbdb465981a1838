// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One token from a row of logits, by noise that depends on what the draw is for and on nothing
// else.
#pragma once

#include <cmath>
#include <cstdint>

#include "examples/decoder/rows.hpp"
#include "lamina/core/random.hpp"
#include "lamina/policy/token_logprob.hpp"

namespace decoder {

/// How tokens are drawn.
///
/// temperature  logits are divided by it, also for the reported log-probabilities
/// greedy       take the most likely token (the lowest id among equals) instead of drawing
/// seed, step   key of the noise, with the row, the position and the token
/// first_row    number of the first row, for a caller who samples a batch in parts
struct sampling_options {
  double temperature = 1;
  bool greedy = false;
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  index_t first_row = 0;
};

/// Draws token argmax_v(logits[v] / temperature + g_v), with g_v = -log(-log u) standard Gumbel
/// noise, hence v with probability softmax(logits / temperature)[v]; and its log-probability.
///
/// logits     [draws / copies, vocab]  every row is drawn from `copies` times in succession
/// rows       [draws]  row of each draw
/// positions  [draws]  place of the new token in its row
/// tokens, log_probs  [draws]
/// Source: Maddison, Tarlow and Minka 2014, "A* sampling", section 2 (the Gumbel-max trick).
template <real T>
struct draw_tokens {
  sampling_options options;
  matrix_view<T const> logits;
  index_t copies;
  vector_view<index_t const> rows;
  vector_view<index_t const> positions;
  vector_view<std::int32_t> tokens;
  vector_view<float> log_probs;

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t draw) const {
    T const* const x = logits.row(draw / copies).data;
    T const inverse = static_cast<T>(1 / options.temperature);
    auto const summary = lamina::summarize_row<false, Lanes, T>(lanes, x, logits.cols, inverse);
    if (lanes.lane() != 0) return;
    index_t best = 0;
    double best_score = score(draw, 0);
    for (index_t v = 1; v < logits.cols; ++v) {
      double const candidate = score(draw, v);
      if (candidate > best_score) {
        best = v;
        best_score = candidate;
      }
    }
    tokens[draw] = static_cast<std::int32_t>(best);
    log_probs[draw] = static_cast<float>(summary.log_prob(static_cast<double>(x[best] * inverse)));
  }

 private:
  double score(index_t draw, index_t token) const {
    double const logit = static_cast<double>(logits(draw / copies, token));
    if (options.greedy) return logit;
    lamina::random_words const r = lamina::philox4x32(
        options.seed,
        {{options.step, static_cast<std::uint32_t>(options.first_row + rows[draw]),
          static_cast<std::uint32_t>(positions[draw]), static_cast<std::uint32_t>(token)}});
    double const u = lamina::uniform_open(r.word[0], r.word[1]);
    return logit / options.temperature - std::log(-std::log(u));
  }
};

}  // namespace decoder
