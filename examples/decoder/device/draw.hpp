// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tokens drawn on a device: those that the host would draw from the same logits, and what becomes
// of the rows that they belong to.
#pragma once

#include <cmath>
#include <cstring>

#include "examples/decoder/draw.hpp"

namespace decoder {

/// Rollouts as they grow, in the memory of a device.
///
/// tokens, sampled, log_probs, log_kept  [rows, max_length]  as in rollouts
/// lengths            [rows]
/// active             [rows]  1 while the row goes on
/// pending_tokens     [rows]  the token that the cache has not seen
/// pending_positions  [rows]  its place
struct growing_rollouts {
  matrix_view<std::int32_t> tokens;
  matrix_view<std::uint8_t> sampled;
  matrix_view<float> log_probs;
  matrix_view<float> log_kept;
  vector_view<index_t> lengths;
  vector_view<std::uint8_t> active;
  vector_view<std::int32_t> pending_tokens;
  vector_view<index_t> pending_positions;
};

/// cut_of by the lanes of a group, which pass over the row for every bit of the threshold.
template <real T>
class lane_cut {
 public:
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE static cut<T> of(Lanes lanes, scaled_row<T> const& row,
                                      truncation const& options) {
    cut<T> strictest{-infinite, row.summary.total};
    if (!options.cuts()) return strictest;
    auto const tighten = [&](T lowest) {
      if (lowest > strictest.lowest) strictest = {lowest, mass_from(lanes, row, lowest)};
    };
    if (options.top_k > 0) {
      tighten(
          highest(row, [&](T lowest) { return count_from(lanes, row, lowest) >= options.top_k; }));
    }
    if (options.top_p < 1) {
      double const wanted = options.top_p * strictest.mass;
      tighten(highest(row, [&](T lowest) { return mass_from(lanes, row, lowest) >= wanted; }));
    }
    if (options.min_p > 0) {
      tighten(static_cast<T>(row.summary.peak + std::log(options.min_p)));
    }
    return strictest;
  }

 private:
  using word = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  static constexpr word sign = word{1} << (8 * sizeof(T) - 1);
  static constexpr T infinite = static_cast<T>(__builtin_huge_valf());

  // Words in the order of the numbers, and back.
  LAMINA_HOST_DEVICE static word ordered(T value) {
    word const bits = lamina::detail::bit_cast<word>(value);
    return (bits & sign) != 0 ? ~bits : bits | sign;
  }
  LAMINA_HOST_DEVICE static T number(word order) {
    return lamina::detail::bit_cast<T>((order & sign) != 0 ? order ^ sign : ~order);
  }

  /// The highest number, up to the peak, that leaves enough; the lowest one if none does.
  template <class Enough>
  LAMINA_HOST_DEVICE static T highest(scaled_row<T> const& row, Enough const& enough) {
    word low = ordered(-infinite), high = ordered(static_cast<T>(row.summary.peak));
    while (low < high) {
      word const middle = low + (high - low + 1) / 2;
      if (enough(number(middle))) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return number(low);
  }
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE static index_t count_from(Lanes lanes, scaled_row<T> const& row, T lowest) {
    double count = 0;
    for (index_t v = lanes.lane(); v < row.logits.size; v += lanes.count()) {
      count += row[v] >= lowest ? 1 : 0;
    }
    return static_cast<index_t>(lanes.sum(count));
  }
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE static double mass_from(Lanes lanes, scaled_row<T> const& row, T lowest) {
    double mass = 0;
    for (index_t v = lanes.lane(); v < row.logits.size; v += lanes.count()) {
      if (row[v] >= lowest) mass += static_cast<double>(row.weight(row[v]));
    }
    return lanes.sum(mass);
  }
};

/// Draws a token for every row that goes on, as draw_tokens does, and appends it. A row ends with
/// the end token, or when it is full. One body a row of rollouts.
///
/// logits  [rows / copies, vocab]  every row is drawn from `copies` times in succession
/// end     a token that ends a row; -1 for none
template <real T>
struct draw_and_append {
  sampling_options options;
  matrix_view<T const> logits;
  index_t copies;
  std::int32_t end;
  growing_rollouts rollouts;

  static constexpr auto schedule = lamina::row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (rollouts.active[row] == 0) return;
    index_t const position = rollouts.lengths[row];
    vector_view<T const> const x = logits.row(row / copies);
    T const inverse = static_cast<T>(1 / options.temperature);
    scaled_row<T> const scaled{
        x, inverse, lamina::summarize_row<false, Lanes, T>(lanes, x.data, x.size, inverse)};
    cut<T> const left = lane_cut<T>::of(lanes, scaled, options.allowed);
    index_t const token =
        options.greedy
            ? best(lanes, x.size, [&](index_t v) { return static_cast<double>(x[v]); })
            : noisiest(lanes, scaled, left.lowest, gumbel_noise::of_draw(options, row, position));
    if (lanes.lane() == 0) append(scaled, left, row, position, token);
  }

 private:
  static constexpr double never = -__builtin_huge_val();

  /// The first token with the highest score.
  template <lane_group Lanes, class Score>
  LAMINA_HOST_DEVICE static index_t best(Lanes lanes, index_t vocab, Score const& score) {
    double highest = never;
    index_t token = vocab;
    for (index_t v = lanes.lane(); v < vocab; v += lanes.count()) {
      double const own = score(v);
      if (token < vocab && !(own > highest)) continue;
      highest = own;
      token = v;
    }
    double const peak = lanes.max(highest);
    double const first = highest == peak ? -static_cast<double>(token) : never;
    double const found = -lanes.max(first);
    return found < static_cast<double>(vocab) ? static_cast<index_t>(found) : vocab - 1;
  }

  // Noise takes long to compute, so tokens that win with none are passed over.
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE index_t noisiest(Lanes lanes, scaled_row<T> const& row, T lowest,
                                      gumbel_noise const& noise) const {
    double const most = gumbel_noise::most(0xffffffffu);
    double reached = never;  // by this lane
    return best(lanes, row.logits.size, [&](index_t v) {
      double const scaled = static_cast<double>(row.logits[v]) / options.temperature;
      if (row[v] < lowest || scaled + most < reached) return never;
      double const score = scaled + noise(v);
      reached = score > reached ? score : reached;
      return score;
    });
  }

  LAMINA_HOST_DEVICE void append(scaled_row<T> const& scaled, cut<T> const& left, index_t row,
                                 index_t position, index_t token) const {
    growing_rollouts const& r = rollouts;
    auto const id = static_cast<std::int32_t>(token);
    double const share = left.mass / scaled.summary.total;
    r.tokens(row, position) = id;
    r.sampled(row, position) = 1;
    r.log_probs(row, position) =
        static_cast<float>(scaled.summary.log_prob(static_cast<double>(scaled[token])));
    r.log_kept(row, position) = static_cast<float>(std::log(share < 1 ? share : 1.0));
    r.lengths[row] = position + 1;
    r.active[row] = id != end && position + 1 < r.tokens.cols ? 1 : 0;
    r.pending_tokens[row] = id;
    r.pending_positions[row] = position;
  }
};

}  // namespace decoder
