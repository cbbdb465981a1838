// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One token from a row of logits, by noise that depends on what the draw is for and on nothing
// else.
#pragma once

#include <cmath>
#include <cstdint>

#include "examples/decoder/truncation.hpp"
#include "lamina/core/random.hpp"

namespace decoder {

/// How tokens are drawn.
///
/// temperature  logits are divided by it, also for the reported log-probabilities
/// greedy       take the most likely token (the lowest id among equals) instead of drawing
/// allowed      which tokens may be drawn
/// seed, step   key of the noise, with the row, the position and the token
/// first_row    number of the first row, for a caller who samples a batch in parts
struct sampling_options {
  double temperature = 1;
  bool greedy = false;
  truncation allowed{};
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  index_t first_row = 0;
};

/// Standard Gumbel noise, one value a token: g = -log(-log u), u uniform in (0, 1).
struct gumbel_noise {
  std::uint64_t seed;
  lamina::random_words counter;  // the last word is the token

  /// For the token at a position of a row.
  LAMINA_HOST_DEVICE static gumbel_noise of_draw(sampling_options const& options, index_t row,
                                                 index_t position) {
    return {options.seed,
            {{options.step, static_cast<std::uint32_t>(options.first_row + row),
              static_cast<std::uint32_t>(position), 0}}};
  }

  LAMINA_HOST_DEVICE double operator()(index_t token) const {
    lamina::random_words const r = lamina::philox4x32(seed, counter_of(token));
    return of(lamina::uniform_open(r.word[0], r.word[1]));
  }
  /// The largest leading word of u over `count` tokens, count a multiple of philox_lanes.
  std::uint32_t largest_leading_word(index_t first, index_t count) const {
    std::uint32_t largest = 0, words[lamina::philox_lanes];
    for (index_t token = first; token < first + count; token += lamina::philox_lanes) {
      lamina::philox4x32_leading(seed, counter_of(token), words);
      for (std::uint32_t const word : words) largest = std::max(largest, word);
    }
    return largest;
  }
  /// No token with this leading word, or a lower one, has more noise.
  LAMINA_HOST_DEVICE static double most(std::uint32_t leading_word) {
    return of(lamina::uniform_open(leading_word, 0xffffffffu)) + rounding;
  }

 private:
  static constexpr double rounding = 1e-9;  // of two logarithms, by far
  LAMINA_HOST_DEVICE lamina::random_words counter_of(index_t token) const {
    return {{counter.word[0], counter.word[1], counter.word[2], static_cast<std::uint32_t>(token)}};
  }
  LAMINA_HOST_DEVICE static double of(double u) { return -std::log(-std::log(u)); }
};

/// Draws token argmax_v(logits[v] / temperature + g_v) over the tokens that may be drawn, hence v
/// with its share of their probability softmax(logits / temperature); and its log-probability.
///
/// The log-probability is that of the whole distribution, the one that a trainer computes from the
/// same logits, so that on-policy ratios are 1 with and without a cut. log_kept is the logarithm of
/// the probability that the cut leaves: the token was drawn with log_probs - log_kept.
///
/// logits     [draws / copies, vocab]  every row is drawn from `copies` times in succession
/// rows       [draws]  row of each draw
/// positions  [draws]  place of the new token in its row
/// tokens, log_probs, log_kept  [draws]
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
  vector_view<float> log_kept;

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t draw) const {
    vector_view<T const> const x = logits.row(draw / copies);
    T const inverse = static_cast<T>(1 / options.temperature);
    scaled_row<T> const row{x, inverse,
                            lamina::summarize_row<false, Lanes, T>(lanes, x.data, x.size, inverse)};
    if (lanes.lane() != 0) return;
    cut<T> const left = cut_of(row, options.allowed);
    index_t const token = options.greedy ? most_likely(x) : noisiest(row, left.lowest, draw);
    tokens[draw] = static_cast<std::int32_t>(token);
    log_probs[draw] = static_cast<float>(row.summary.log_prob(static_cast<double>(row[token])));
    log_kept[draw] = static_cast<float>(std::log(std::min(left.mass / row.summary.total, 1.0)));
  }

 private:
  static constexpr index_t block = 64;

  static index_t most_likely(vector_view<T const> x) {
    T const peak = lamina::lane_max<T>(lamina::single_lane{}, 1, x.size, x[0],
                                       [x](index_t v) { return x[v]; });
    index_t v = 0;
    while (v < x.size - 1 && !(x[v] == peak)) ++v;
    return v;
  }

  // Works blocks of tokens and passes over those that cannot win: first by the most noise there
  // is, then by the most noise that the leading random words of the block allow.
  index_t noisiest(scaled_row<T> const& row, T lowest, index_t draw) const {
    auto const noise = gumbel_noise::of_draw(options, rows[draw], positions[draw]);
    double const most_noise = gumbel_noise::most(0xffffffffu);
    index_t best = 0;
    double best_score = -std::numeric_limits<double>::infinity();
    auto const score = [&](index_t v, double g) {
      return static_cast<double>(row.logits[v]) / options.temperature + g;
    };
    for (index_t begin = 0; begin < row.logits.size; begin += block) {
      index_t const end = std::min(begin + block, row.logits.size);
      T const* const x = row.logits.data;
      T const peak = lamina::lane_max<T>(lamina::single_lane{}, begin + 1, end, x[begin],
                                         [x](index_t v) { return x[v]; });
      double const ceiling = static_cast<double>(peak) / options.temperature;
      if (peak * row.inverse_temperature < lowest || ceiling + most_noise < best_score) continue;
      double const bound = gumbel_noise::most(noise.largest_leading_word(begin, block));
      if (ceiling + bound < best_score) continue;
      for (index_t v = begin; v < end; ++v) {
        if (row[v] < lowest || score(v, bound) < best_score) continue;
        double const candidate = score(v, noise(v));
        if (candidate > best_score) {
          best = v;
          best_score = candidate;
        }
      }
    }
    return best;
  }
};

}  // namespace decoder
