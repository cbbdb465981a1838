// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Plain double-precision loops written from the papers, to compare the library with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace lamina::testing {

/// log softmax(z / T)[j] by the definition, in long double.
inline double reference_log_prob(std::vector<double> const& z, std::size_t j, double temperature) {
  long double peak = z[0] / temperature;
  for (double x : z) peak = std::max<long double>(peak, x / temperature);
  long double total = 0;
  for (double x : z) total += std::exp(x / static_cast<long double>(temperature) - peak);
  return static_cast<double>(z[j] / static_cast<long double>(temperature) - peak - std::log(total));
}

/// Entropy of softmax(z / T) by the definition.
inline double reference_entropy(std::vector<double> const& z, double temperature) {
  double const log_total = z[0] / temperature - reference_log_prob(z, 0, temperature);
  double entropy = 0;
  for (double x : z) {
    double const log_p = x / temperature - log_total;
    if (std::isfinite(log_p)) entropy -= std::exp(log_p) * log_p;
  }
  return entropy;
}

/// How a sequence's token losses are combined.
enum class reference_aggregation { token_mean, token_mean_of_sequences, constant, token_sum };

/// A ragged batch as nested vectors.
struct reference_batch {
  std::vector<std::vector<double>> log_probs, old_log_probs, reference_log_probs;
  std::vector<std::vector<int>> mask;
  std::vector<double> advantages;
};

/// The clipped GRPO loss with a k1/k2/k3 penalty, token by token from the formulas: value only, so
/// that derivatives can be checked by central differences.
inline double reference_grpo_loss(reference_batch const& b, double clip_low, double clip_high,
                                  double beta, int kl_kind, reference_aggregation aggregation,
                                  double length) {
  double total_tokens = 0, loss = 0;
  for (auto const& m : b.mask) {
    for (int x : m) total_tokens += x;
  }
  double const sequences = static_cast<double>(b.mask.size());
  for (std::size_t i = 0; i < b.mask.size(); ++i) {
    double sum = 0, count = 0;
    for (std::size_t t = 0; t < b.mask[i].size(); ++t) {
      if (!b.mask[i][t]) continue;
      count += 1;
      double const ratio = std::exp(b.log_probs[i][t] - b.old_log_probs[i][t]);
      double const clipped = std::min(std::max(ratio, 1 - clip_low), 1 + clip_high);
      double term = -std::min(ratio * b.advantages[i], clipped * b.advantages[i]);
      if (beta != 0) {
        double const k = b.log_probs[i][t] - b.reference_log_probs[i][t];
        term += beta * (kl_kind == 1 ? k : kl_kind == 2 ? k * k / 2 : std::exp(-k) + k - 1);
      }
      sum += term;
    }
    switch (aggregation) {
      case reference_aggregation::token_mean: loss += sum / total_tokens; break;
      case reference_aggregation::token_mean_of_sequences:
        loss += sum / std::max(count, 1.0) / sequences;
        break;
      case reference_aggregation::constant: loss += sum / (length * sequences); break;
      case reference_aggregation::token_sum: loss += sum / sequences; break;
    }
  }
  return loss;
}

}  // namespace lamina::testing
