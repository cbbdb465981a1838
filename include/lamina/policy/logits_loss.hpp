// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The logits form of a policy loss: logits become d loss / d logits in place.
#pragma once

#include <cmath>
#include <type_traits>

#include "lamina/policy/estimator.hpp"
#include "lamina/policy/token_logprob.hpp"

LAMINA_NAMESPACE_BEGIN

/// Per-token results of the logits form, in buffers of the host.
template <real T>
struct policy_outputs {
  vector_view<T> log_probs{};    ///< [tokens] log-probs of the chosen tokens
  vector_view<T> d_log_probs{};  ///< [tokens] d loss / d log-prob
  vector_view<T> entropies{};    ///< [tokens], or empty: not computed
};

/// Turns one row of logits into its gradient:
///
///   d loss / d z_j = (c / T) (1[j = y] - p_j),    p = softmax(z / T)
///
/// On entry d_log_probs[row] holds the token's aggregation weight; on return its coefficient c.
template <bool WithEntropy, storage_scalar T, policy_estimator Estimator>
struct policy_logits_body {
  using compute = compute_t<T>;
  matrix_view<T> logits;
  policy_batch<compute> batch;
  policy_outputs<compute> outputs;
  Estimator estimator;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    T* const values = logits.row(row).data;
    if (!batch.active(row)) {
      for_each_element(lanes, 0, logits.cols, [values](index_t v) { values[v] = T(0.0f); });
      if (lanes.lane() == 0) write(row, 0, 0, 0);
      return;
    }
    // Read what this row overwrites before the collectives, which every lane has to reach.
    compute const inverse = static_cast<compute>(1.0 / batch.temperature);
    index_t const chosen = batch.token_ids[row];
    compute const chosen_logit = static_cast<compute>(values[chosen]) * inverse;
    double const weight = static_cast<double>(outputs.d_log_probs[row]);
    softmax_summary const summary =
        summarize_row<WithEntropy>(lanes, static_cast<T const*>(values), logits.cols, inverse);

    compute const log_prob =
        static_cast<compute>(summary.log_prob(static_cast<double>(chosen_logit)));
    token_loss const loss =
        detail::token_loss_of(estimator, batch, log_prob, batch.sequence_of(row), row, weight);
    compute const coefficient = detail::coefficient_of<compute>(loss);

    if (coefficient == 0) {
      for_each_element(lanes, 0, logits.cols, [values](index_t v) { values[v] = T(0.0f); });
    } else {
      compute const peak = static_cast<compute>(summary.peak);
      compute const slope = coefficient * inverse;
      compute const factor = -slope * static_cast<compute>(1.0 / summary.total);
      for_each_element(lanes, 0, logits.cols, [values, inverse, peak, factor](index_t v) {
        values[v] =
            static_cast<T>(factor * fast_exp(static_cast<compute>(values[v]) * inverse - peak));
      });
      if (chosen % lanes.count() == lanes.lane()) {
        // 1 - p without cancellation where p is close to 1.
        values[chosen] = static_cast<T>(
            -slope * static_cast<compute>(std::expm1(static_cast<double>(log_prob))));
      }
    }
    if (lanes.lane() == 0) {
      write(row, log_prob, coefficient, WithEntropy ? summary.entropy() : 0.0);
    }
  }

 private:
  LAMINA_HOST_DEVICE void write(index_t row, compute log_prob, compute coefficient,
                                double entropy) const {
    outputs.log_probs[row] = log_prob;
    outputs.d_log_probs[row] = coefficient;
    if constexpr (WithEntropy) outputs.entropies[row] = static_cast<compute>(entropy);
  }
};

/// Policy loss from logits, which are turned into d loss / d logits where they lie; then call the
/// model's backward with them. One visit a row, no allocation.
///
/// logits   [tokens, vocab]  f32, f64, bf16 or f16 (narrow types are computed in float); row t
///                           predicts batch.token_ids[t]
/// outputs  [tokens]         log-probs, coefficients and, if given, entropies
/// The result equals that of the log-prob form on outputs.log_probs, bit for bit. Rows whose mask
/// is 0 are not read and get gradient 0. Rows with non-finite values are counted and get gradient
/// 0. Throws shape_error or config_error before anything is written.
template <tensor_backend Backend, policy_estimator Estimator, storage_scalar T>
policy_result policy_loss(Backend const& backend, Estimator const& estimator, matrix_view<T> logits,
                          policy_batch<compute_t<T>> const& batch,
                          policy_outputs<compute_t<std::type_identity_t<T>>> outputs) {
  using compute = compute_t<T>;
  detail::check_policy_batch("policy_loss", estimator, batch);
  index_t const tokens = batch.token_count();
  if (logits.rows != tokens || outputs.log_probs.size != tokens ||
      outputs.d_log_probs.size != tokens ||
      (!outputs.entropies.empty() && outputs.entropies.size != tokens)) {
    throw_shape_error("policy_loss: logits has ", logits.rows, " rows, outputs.log_probs ",
                      outputs.log_probs.size, ", outputs.d_log_probs ", outputs.d_log_probs.size,
                      ", outputs.entropies ", outputs.entropies.size, " entries; the batch has ",
                      tokens, " tokens (entropies may be empty)");
  }
  detail::check_logits("policy_loss", logits, batch.token_ids, batch.mask, batch.temperature);

  for (index_t i = 0; i < batch.sequence_count(); ++i) {
    double const weight = estimator.aggregation.weight(batch.active_tokens(i), batch.denominators);
    for (index_t t = batch.offsets[i]; t < batch.offsets[i + 1]; ++t) {
      outputs.d_log_probs[t] = static_cast<compute>(weight);
    }
  }
  if (outputs.entropies.empty()) {
    backend.executor().run(
        tokens, policy_logits_body<false, T, Estimator>{logits, batch, outputs, estimator});
  } else {
    backend.executor().run(
        tokens, policy_logits_body<true, T, Estimator>{logits, batch, outputs, estimator});
  }
  return detail::reduce_policy_loss<Estimator, compute>(estimator, outputs.log_probs, batch,
                                                        outputs.entropies, outputs.d_log_probs);
}

LAMINA_NAMESPACE_END
