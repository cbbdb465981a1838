// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The logits form of a policy loss: logits become d loss / d logits in place.
#pragma once

#include <cmath>
#include <type_traits>

#include "lamina/policy/detail/narrow_row.hpp"
#include "lamina/policy/log_prob_loss.hpp"
#include "lamina/policy/token_logprob.hpp"

LAMINA_NAMESPACE_BEGIN

/// Per-token results of the logits form, in buffers of the host.
template <real T>
struct policy_outputs {
  vector_view<T> log_probs{};    ///< [tokens] log-probs of the chosen tokens
  vector_view<T> d_log_probs{};  ///< [tokens] d loss / d log-prob
  vector_view<T> entropies{};    ///< [tokens], or empty: not computed
  vector_view<T> d_entropies{};  ///< [tokens] d loss / d entropy; needed with an entropy bonus
};

namespace detail {

// An estimator whose tokens do not depend on others of their sequence: one visit a row suffices.
template <class Estimator>
concept token_local = !Estimator::sequence_wide && Estimator::coupling == ratio_coupling::own_token;

// Asks for as much of a row as lanes can keep, so that it is read from memory once; lanes without
// slots ask for nothing.
template <lane_group Lanes, storage_scalar T>
LAMINA_HOST_DEVICE inline int fetch_row(Lanes lanes, T* values, index_t vocab) {
  if constexpr (keeping_lane_group<Lanes>) {
    return row_chunks(lanes, values, vocab).fetch();
  } else {
    return nothing_fetched;
  }
}

// logit = f(logit) for a row, f in what T is computed in.
template <lane_group Lanes, storage_scalar T, class F>
LAMINA_HOST_DEVICE inline void rewrite_row(Lanes lanes, T* values, index_t vocab, int fetched,
                                           F const& f) {
  if constexpr (keeping_lane_group<Lanes>) {
    row_chunks(lanes, values, vocab).rewrite(fetched, f);
  } else {
    for_each_element(lanes, 0, vocab, [values, f](index_t v) {
      values[v] = static_cast<T>(f(static_cast<compute_t<T>>(values[v])));
    });
  }
}

// Whether this lane is the one that rewrite_row lets write an element.
template <lane_group Lanes, storage_scalar T>
LAMINA_HOST_DEVICE inline bool writes(Lanes lanes, T* values, index_t vocab, index_t element) {
  if constexpr (keeping_lane_group<Lanes>) {
    return row_chunks(lanes, values, vocab).owns(element);
  } else {
    return element % lanes.count() == lanes.lane();
  }
}

// Writes over a row of logits z the gradient of  c log p_y + e H  with u = z / T, p = softmax(u):
//
//   d / d z_j = (c (1[j = y] - p_j) - e p_j (log p_j + H)) / T
//
// log p_j = u_j - peak - log total. Out is what the row holds afterwards: T, or bf16 instead of
// float.
template <bool WithBonus, storage_scalar Out, lane_group Lanes, storage_scalar T>
LAMINA_HOST_DEVICE inline void write_logits_gradient(Lanes lanes, T* values, index_t vocab,
                                                     index_t chosen, compute_t<T> inverse,
                                                     double peak, double total, double log_prob,
                                                     compute_t<T> c, double e, double entropy,
                                                     int fetched) {
  using compute = compute_t<T>;
  // In the units of row_power.
  compute const unit = row_unit<compute>(), stretch = inverse * unit;
  compute const top = static_cast<compute>(peak / nats_of_unit<compute>());
  compute const slope = c * inverse;
  auto const at_chosen = [=] {
    // 1 - p without cancellation where p is close to 1.
    double value = -static_cast<double>(slope) * std::expm1(log_prob);
    if constexpr (WithBonus) {
      value -= e * static_cast<double>(inverse) * std::exp(log_prob) * (log_prob + entropy);
    }
    return static_cast<compute>(value);
  };
  auto const write = [=](auto const& f) {
    if constexpr (std::same_as<Out, T>) {
      rewrite_row(lanes, values, vocab, fetched, f);
      if (writes(lanes, values, vocab, chosen)) values[chosen] = static_cast<T>(at_chosen());
    } else {
      narrow_row(lanes, values, vocab, f, chosen, at_chosen(), fetched);
    }
  };
  if constexpr (WithBonus) {
    compute const scale = static_cast<compute>(static_cast<double>(inverse) / total);
    compute const bonus = static_cast<compute>(e * nats_of_unit<compute>());
    compute const offset =
        static_cast<compute>(static_cast<double>(c) + e * (entropy - std::log(total)));
    write([stretch, top, scale, bonus, offset](compute logit) {
      compute const t = logit * stretch - top;
      // Beyond -1000 the exponential is 0; the bound keeps 0 * -infinity out.
      compute const weight = offset + bonus * clamp_magnitude(t, compute(1000));
      return -scale * row_power(t) * weight;
    });
  } else {
    compute const factor = -slope * static_cast<compute>(1.0 / total);
    write([stretch, top, factor](compute logit) {
      return factor * row_power(logit * stretch - top);
    });
  }
}

// The same for a row that holds e^(u - peak of its block).
template <lane_group Lanes, storage_scalar T>
LAMINA_HOST_DEVICE inline void scale_exponentials(Lanes lanes, T* values, index_t vocab,
                                                  index_t chosen, compute_t<T> inverse,
                                                  double const* block_peaks, double peak,
                                                  double total, double log_prob, compute_t<T> c) {
  using compute = compute_t<T>;
  compute const slope = c * inverse;
  for (index_t begin = 0; begin < vocab; begin += softmax_block) {
    index_t const end = begin + softmax_block < vocab ? begin + softmax_block : vocab;
    compute const factor = static_cast<compute>(
        -static_cast<double>(slope) * std::exp(block_peaks[begin / softmax_block] - peak) / total);
    for_each_element(lanes, begin, end, [values, factor](index_t v) {
      values[v] = static_cast<T>(factor * static_cast<compute>(values[v]));
    });
  }
  if (chosen % lanes.count() == lanes.lane()) {
    values[chosen] =
        static_cast<T>(static_cast<compute>(-static_cast<double>(slope) * std::expm1(log_prob)));
  }
}

template <real T>
void check_outputs(char const* function, policy_outputs<T> const& outputs, index_t tokens,
                   bool has_bonus, bool reads_entropies) {
  auto const check = [&](char const* name, index_t size, bool needed) {
    if (size != tokens && (needed || size != 0)) {
      throw_shape_error(function, ": outputs.", name, " has ", size, " entries, the batch has ",
                        tokens, " tokens", needed ? "" : " (it may be empty)");
    }
  };
  check("log_probs", outputs.log_probs.size, true);
  check("d_log_probs", outputs.d_log_probs.size, true);
  check("entropies", outputs.entropies.size, has_bonus || reads_entropies);
  check("d_entropies", outputs.d_entropies.size, has_bonus);
}

// What policy_logits_body needs of a token's sequence, where the coefficient will be; exact in
// float up to 2^24 tokens.
template <real T>
void count_active_tokens(policy_batch<T> const& batch, vector_view<T> d_log_probs) {
  for (index_t i = 0; i < batch.sequence_count(); ++i) {
    T const active = static_cast<T>(batch.active_tokens(i));
    for (index_t t = batch.offsets[i]; t < batch.offsets[i + 1]; ++t) d_log_probs[t] = active;
  }
}

template <lane_group Lanes, storage_scalar T>
LAMINA_HOST_DEVICE inline void clear_row(Lanes lanes, T* values, index_t vocab) {
  if constexpr (keeping_lane_group<Lanes>) {
    row_chunks(lanes, values, vocab).fill(T(0.0f));
  } else {
    for_each_element(lanes, 0, vocab, [values](index_t v) { values[v] = T(0.0f); });
  }
}

}  // namespace detail

/// Turns one row of logits into its gradient:
///
///   d loss / d z_j = (c / T) (1[j = y] - p_j),    p = softmax(z / T)
///
/// and with an entropy bonus of slope e in addition -(e / T) p_j (log p_j + H).
///
/// On entry outputs.d_log_probs[tokens(row)] holds the active tokens of the token's sequence, see
/// count_active_tokens (0: the row gets gradient 0); on return the coefficient c. With Out = bf16,
/// rows of float end as rows of bf16 in their first halves.
template <bool WithEntropy, storage_scalar T, policy_estimator Estimator,
          class Tokens = token_of_row, storage_scalar Out = T>
requires detail::token_local<Estimator>
struct policy_logits_body {
  static constexpr row_schedule schedule = row_schedule::cluster;
  using compute = compute_t<T>;
  using number = detail::number_of<Estimator, compute>;
  matrix_view<T> logits;
  policy_batch<compute> batch;
  policy_outputs<compute> outputs;
  Estimator estimator;
  Tokens tokens{};

  /// What lanes with slots keep: the row, so that it is read from memory once.
  index_t kept_bytes() const { return logits.cols * static_cast<index_t>(sizeof(T)); }

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    T* const values = logits.row(row).data;
    index_t const token = tokens(row);
    if (!batch.active(token)) {
      detail::clear_row(lanes, values, logits.cols);
      if (lanes.lane() == 0) write(token, 0, 0, 0, 0);
      return;
    }
    index_t const chosen = batch.token_ids[token];
    index_t const active_tokens = static_cast<index_t>(outputs.d_log_probs[token]);
    int const fetched = detail::fetch_row(lanes, values, logits.cols);
    // While the row is on its way, all else that memory has to be asked for; and what this row
    // overwrites, before the collectives, which every lane has to reach.
    compute const inverse = static_cast<compute>(1.0 / batch.temperature);
    compute const chosen_logit =
        detail::scaled_logit(static_cast<T const*>(values), logits.cols, chosen, inverse);
    bool const counts = active_tokens > 0;
    double const weight =
        counts ? estimator.aggregation.weight(active_tokens, batch.denominators) : 0.0;
    double const entropy_weight =
        counts ? estimator.entropy.weight(active_tokens, batch.denominators, weight) : 0.0;
    detail::token_entries<compute> const own(estimator, batch, token);

    constexpr bool keeping = keeping_lane_group<Lanes>;
    double block_peaks[keeping ? 1 : detail::keep_exponentials<compute>::most_blocks];
    bool const exponentials = !keeping && keeps_exponentials();
    softmax_summary const summary =
        summarize(lanes, values, inverse, block_peaks, exponentials, fetched);

    compute const log_prob =
        static_cast<compute>(summary.log_prob(static_cast<double>(chosen_logit)));
    double const entropy = WithEntropy ? summary.entropy() : 0.0;
    auto const g = detail::gather<number, bool>(
        estimator, own.batch(), 0, 0, 1, [log_prob] { return static_cast<number>(log_prob); },
        WithEntropy, [entropy] { return static_cast<number>(static_cast<compute>(entropy)); });
    auto const weighted = detail::weigh<compute, number, bool, Estimator>(
        g, estimator.evaluate(g.token, g.k, sequence_state{}), weight, entropy_weight,
        estimator.kl.active());
    compute const c = static_cast<compute>(weighted.d_log_prob);
    double const e = static_cast<double>(weighted.d_entropy);

    if (WithEntropy && e != 0) {
      detail::write_logits_gradient<true, Out>(
          lanes, values, logits.cols, chosen, inverse, summary.peak, summary.total,
          static_cast<double>(log_prob), c, e, entropy, fetched);
    } else if (c != 0 && exponentials) {
      detail::scale_exponentials(lanes, values, logits.cols, chosen, inverse, block_peaks,
                                 summary.peak, summary.total, static_cast<double>(log_prob), c);
    } else if (c != 0) {
      detail::write_logits_gradient<false, Out>(
          lanes, values, logits.cols, chosen, inverse, summary.peak, summary.total,
          static_cast<double>(log_prob), c, 0.0, 0.0, fetched);
    } else {
      detail::clear_row(lanes, values, logits.cols);
    }
    if (lanes.lane() == 0) write(token, log_prob, c, entropy, e);
  }

 private:
  // Whether the first pass may leave exponentials behind: narrow storage would round them, and an
  // entropy bonus needs the logits again.
  LAMINA_HOST_DEVICE bool keeps_exponentials() const {
    return real<T> && std::same_as<Out, T> && !estimator.entropy.active() &&
           logits.cols <= detail::softmax_block * detail::keep_exponentials<compute>::most_blocks;
  }
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE softmax_summary summarize(Lanes lanes, T* values, compute inverse,
                                               double* block_peaks, bool exponentials,
                                               int fetched) const {
    if constexpr (keeping_lane_group<Lanes>) {
      return detail::summarize_chunks<WithEntropy>(lanes, values, logits.cols, inverse, fetched);
    } else if constexpr (real<T>) {
      if (exponentials) {
        return detail::summarize_blocks<WithEntropy, compute>(
            lanes, values, logits.cols, inverse, detail::keep_exponentials<T>{block_peaks});
      }
    }
    return summarize_row<WithEntropy>(lanes, static_cast<T const*>(values), logits.cols, inverse);
  }
  LAMINA_HOST_DEVICE void write(index_t token, compute log_prob, compute c, double entropy,
                                double e) const {
    outputs.log_probs[token] = log_prob;
    outputs.d_log_probs[token] = c;
    if constexpr (WithEntropy) outputs.entropies[token] = static_cast<compute>(entropy);
    if (outputs.d_entropies.size > 0) outputs.d_entropies[token] = static_cast<compute>(e);
  }
};

/// The second visit of a row where coefficients depend on whole sequences: log-probs, entropies and
/// their coefficients are in the outputs, the row of logits becomes its gradient.
template <storage_scalar T, class Tokens = token_of_row, storage_scalar Out = T>
struct logits_gradient_body {
  static constexpr row_schedule schedule = row_schedule::block;
  using compute = compute_t<T>;
  matrix_view<T> logits;
  policy_batch<compute> batch;
  policy_outputs<compute> outputs;
  Tokens tokens{};

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    T* const values = logits.row(row).data;
    index_t const token = tokens(row);
    compute const c = batch.active(token) ? outputs.d_log_probs[token] : compute(0);
    compute const e = batch.active(token) && outputs.d_entropies.size > 0
                          ? outputs.d_entropies[token]
                          : compute(0);
    if (c == 0 && e == 0) {
      detail::clear_row(lanes, values, logits.cols);
      return;
    }
    compute const inverse = static_cast<compute>(1.0 / batch.temperature);
    index_t const chosen = batch.token_ids[token];
    double const log_prob = static_cast<double>(outputs.log_probs[token]);
    // log sum_j exp(u_j), from what the first visit left of it.
    double const normaliser =
        static_cast<double>(static_cast<compute>(values[chosen]) * inverse) - log_prob;
    // Every lane has read the chosen logit before one of them overwrites it.
    static_cast<void>(lanes.sum(0.0));
    if (e != 0) {
      detail::write_logits_gradient<true, Out>(lanes, values, logits.cols, chosen, inverse,
                                               normaliser, 1.0, log_prob, c, static_cast<double>(e),
                                               static_cast<double>(outputs.entropies[token]),
                                               detail::nothing_fetched);
    } else {
      detail::write_logits_gradient<false, Out>(lanes, values, logits.cols, chosen, inverse,
                                                normaliser, 1.0, log_prob, c, 0.0, 0.0,
                                                detail::nothing_fetched);
    }
  }
};

/// Policy loss from logits, which are turned into d loss / d logits where they lie; then call the
/// model's backward with them. No allocation. One visit a row, two where a coefficient depends on
/// its whole sequence or group.
///
/// logits   [tokens, vocab]  f32, f64, bf16 or f16 (narrow types are computed in float); row t
///                           predicts batch.token_ids[t]
/// outputs  [tokens]         log-probs, coefficients and, if given, entropies; both entropy arrays
///                           are needed with an entropy bonus, entropies with an entropy filter
/// Loss, metrics and outputs equal those of the log-prob form on outputs.log_probs, bit for bit.
/// Rows whose mask is 0 are not read and get gradient 0. Rows with non-finite values are counted
/// and get gradient 0. Throws shape_error or config_error before anything is written.
template <tensor_backend Backend, class Estimator, storage_scalar T>
requires policy_objective<Estimator> policy_result
policy_loss(Backend const& backend, Estimator const& estimator, matrix_view<T> logits,
            policy_batch<compute_t<T>> const& batch,
            policy_outputs<compute_t<std::type_identity_t<T>>> outputs) {
  static_assert(host_backend<Backend>,
                "lamina: on a device policy_loss takes a policy_report as well and returns "
                "nothing: include lamina/policy/device_loss.hpp");
  using compute = compute_t<T>;
  detail::check_policy_batch("policy_loss", estimator, batch, true);
  index_t const tokens = batch.token_count();
  detail::check_outputs("policy_loss", outputs, tokens, estimator.entropy.active(),
                        (Estimator::reads & token_input::entropies) != 0);
  if (logits.rows != tokens) {
    throw_shape_error("policy_loss: logits has ", logits.rows, " rows, the batch has ", tokens,
                      " tokens");
  }
  detail::check_logits("policy_loss", logits, batch.token_ids, batch.mask, batch.temperature);

  if constexpr (detail::token_local<Estimator>) {
    detail::count_active_tokens(batch, outputs.d_log_probs);
    if (outputs.entropies.empty()) {
      backend.executor().run(
          tokens, policy_logits_body<false, T, Estimator>{logits, batch, outputs, estimator});
    } else {
      backend.executor().run(
          tokens, policy_logits_body<true, T, Estimator>{logits, batch, outputs, estimator});
    }
    return detail::reduce_policy_loss<Estimator, compute>(estimator, outputs.log_probs, batch,
                                                          outputs.entropies, outputs.d_log_probs,
                                                          outputs.d_entropies);
  } else {
    token_log_probs(backend, logits, batch.token_ids, batch.mask, batch.temperature,
                    outputs.log_probs, outputs.entropies);
    policy_result const result = detail::reduce_policy_loss<Estimator, compute>(
        estimator, outputs.log_probs, batch, outputs.entropies, outputs.d_log_probs,
        outputs.d_entropies);
    backend.executor().run(tokens, logits_gradient_body<T>{logits, batch, outputs});
    return result;
  }
}

LAMINA_NAMESPACE_END
