// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Which tokens may be drawn: top-k, top-p and min-p as one threshold, so that tokens with equal
// logits stay or go together, however they are numbered.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "examples/decoder/rows.hpp"
#include "lamina/policy/token_logprob.hpp"

namespace decoder {

/// Cuts the tail of a distribution off. All three see the temperature; the strictest one counts.
///
/// top_k  keep the k most likely tokens; 0 keeps all
/// top_p  of what top_k leaves, keep the most likely tokens until they hold this share of the mass
/// min_p  keep tokens at least this likely, as a share of the most likely one's probability
/// Source: Fan et al. 2018 (top-k); Holtzman et al. 2020, "The curious case of neural text
/// degeneration" (top-p); Nguyen et al. 2024, "Turning up the heat" (min-p).
struct truncation {
  index_t top_k = 0;
  double top_p = 1;
  double min_p = 0;

  LAMINA_HOST_DEVICE bool cuts() const { return top_k > 0 || top_p < 1 || min_p > 0; }
};

/// A row of logits at a temperature, and what summarize_row says of it.
template <real T>
struct scaled_row {
  vector_view<T const> logits;
  T inverse_temperature;
  lamina::softmax_summary summary;

  LAMINA_HOST_DEVICE T operator[](index_t token) const {
    return logits[token] * inverse_temperature;
  }
  /// e^(u - peak) of a scaled logit u.
  LAMINA_HOST_DEVICE T weight(T u) const {
    return lamina::fast_exp(u - static_cast<T>(summary.peak));
  }
};

/// The lowest scaled logit that may be drawn, and the weight of all that may.
template <real T>
struct cut {
  T lowest;
  double mass;
};

/// Where the mass of a row lies: counts and masses by distance from the peak, so that a cut is
/// found by sorting a few tokens and not the vocabulary.
template <real T>
class mass_profile {
 public:
  explicit mass_profile(scaled_row<T> const& row) : row_(row) {
    constexpr index_t block = 64;
    std::int32_t bins[block];
    T weights[block];
    for (index_t begin = 0; begin < row.logits.size; begin += block) {
      index_t const size = std::min(block, row.logits.size - begin);
      for (index_t i = 0; i < size; ++i) {
        bins[i] = bin_of(row[begin + i]);
        weights[i] = row.weight(row[begin + i]);
      }
      for (index_t i = 0; i < size; ++i) {
        ++counts_[bins[i]];
        masses_[bins[i]] += static_cast<double>(weights[i]);
      }
    }
  }

  /// The shallowest cut that leaves at least `count` tokens or at least `mass`.
  cut<T> reach(index_t count, double mass) const {
    std::int32_t bin = 0;
    double total = 0;
    for (; bin < bin_count - 1 && counts_[bin] < count && total + masses_[bin] < mass; ++bin) {
      count -= counts_[bin];
      total += masses_[bin];
    }
    std::vector<T> const tokens = tokens_of(bin);
    if (tokens.empty()) return {-std::numeric_limits<T>::infinity(), total};
    std::size_t taken = 0;
    do {
      total += static_cast<double>(row_.weight(tokens[taken++]));
    } while (taken < tokens.size() && (tokens[taken] == tokens[taken - 1] ||
                                       (static_cast<index_t>(taken) < count && total < mass)));
    return {tokens[taken - 1], total};
  }

  /// The cut that leaves what is not below `lowest`.
  cut<T> down_to(T lowest) const {
    double total = 0;
    std::int32_t const last = bin_of(lowest);
    for (std::int32_t bin = 0; bin < last; ++bin) total += masses_[bin];
    for (T const u : tokens_of(last)) {
      if (u >= lowest) total += static_cast<double>(row_.weight(u));
    }
    return {lowest, total};
  }

 private:
  static constexpr std::int32_t bin_count = 512, bins_per_nat = 16;

  std::int32_t bin_of(T u) const {
    T const depth = (static_cast<T>(row_.summary.peak) - u) * T(bins_per_nat);
    return static_cast<std::int32_t>(depth < T(bin_count - 1) ? depth : T(bin_count - 1));
  }

  // Descending.
  std::vector<T> tokens_of(std::int32_t bin) const {
    std::vector<T> tokens;
    for (index_t v = 0; v < row_.logits.size; ++v) {
      if (bin_of(row_[v]) == bin) tokens.push_back(row_[v]);
    }
    std::sort(tokens.begin(), tokens.end(), [](T a, T b) { return a > b; });
    return tokens;
  }

  scaled_row<T> row_;
  index_t counts_[bin_count] = {};
  double masses_[bin_count] = {};
};

/// What may be drawn of a row.
template <real T>
cut<T> cut_of(scaled_row<T> const& row, truncation const& options) {
  cut<T> strictest{-std::numeric_limits<T>::infinity(), row.summary.total};
  if (!options.cuts()) return strictest;
  mass_profile<T> const profile(row);
  auto const tighten = [&strictest](cut<T> const& other) {
    if (other.lowest > strictest.lowest) strictest = other;
  };
  if (options.top_k > 0) {
    tighten(profile.reach(options.top_k, std::numeric_limits<double>::infinity()));
  }
  if (options.top_p < 1) {
    tighten(profile.reach(row.logits.size, options.top_p * strictest.mass));
  }
  if (options.min_p > 0) {
    tighten(profile.down_to(static_cast<T>(row.summary.peak + std::log(options.min_p))));
  }
  return strictest;
}

}  // namespace decoder
