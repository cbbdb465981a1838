// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The log-prob form of a policy loss: log-probs in; loss, metrics and one coefficient a token out.
#pragma once

#include "lamina/policy/detail/batch_check.hpp"
#include "lamina/policy/detail/sequence_pass.hpp"

LAMINA_NAMESPACE_BEGIN

/// An objective that is no sum over tokens or sequences, such as one that contrasts the rollouts of
/// a group: it turns the log-probs of a call into loss and coefficients itself.
template <class E>
concept group_objective = copyable_value<E> &&
    requires(E const& e, policy_batch<double> const& batch, vector_view<double const> in,
             vector_view<double> out) {
  { e.reduce(in, batch, in, out, out) } -> std::same_as<policy_result>;
  { e.kl.active() } -> std::same_as<bool>;
  { e.entropy.active() } -> std::same_as<bool>;
  { E::reads } -> std::convertible_to<unsigned>;
  e.check();
};

/// What policy_loss accepts.
template <class E>
concept policy_objective = policy_estimator<E> || group_objective<E>;

namespace detail {

// One call of a policy loss in the log-prob form on the host.
template <class V, policy_estimator Estimator, real T>
policy_result reduce_sequences(sequence_pass<V, Estimator, T> const& shared) {
  // A copy that nothing else can see stays in registers while results are written.
  sequence_pass<V, Estimator, T> const pass = shared;
  loss_totals<Estimator, T> totals;
  token_range<V> ratios, corrections;
  for (index_t i = 0; i < pass.batch.sequence_count(); ++i) {
    index_t const active = pass.batch.active_tokens(i);
    totals.add(pass.estimator, pass.batch.denominators, active,
               pass.visit(single_lane{}, i, active, ratios, corrections));
  }
  return totals.finish(ratios.total(), corrections.total());
}

// Loss, metrics and coefficients from log-probs: the one place where tokens add up.
template <policy_objective Estimator, real T>
policy_result reduce_policy_loss(Estimator const& estimator, vector_view<T const> log_probs,
                                 policy_batch<T> const& batch, vector_view<T const> entropies,
                                 vector_view<T> d_log_probs, vector_view<T> d_entropies) {
  if constexpr (group_objective<Estimator>) {
    return estimator.reduce(log_probs, batch, entropies, d_log_probs, d_entropies);
  } else {
    return reduce_sequences(sequence_pass<pack_of<Estimator, T>, Estimator, T>{
        estimator, log_probs.data, batch, entropies.empty() ? nullptr : entropies.data,
        d_log_probs.data, d_entropies.empty() ? nullptr : d_entropies.data});
  }
}

}  // namespace detail

/// Policy loss from log-probs, for hosts with their own autograd: they continue from d_log_probs
/// (and d_entropies).
///
/// log_probs    [tokens]  log-probs of the chosen tokens under the current policy, at the sampling
///                        temperature; never used where the mask is 0
/// d_log_probs  [tokens]  written: d loss / d log_probs, exactly 0 where the mask is 0; may alias
///                        log_probs
/// d_entropies  [tokens]  written: d loss / d entropy; needed with an entropy bonus, else may be
///                        empty
/// A batch without active tokens has loss 0. The result is the same on every run. Throws
/// shape_error or config_error, naming what does not fit, before anything is written.
template <policy_objective Estimator, real T>
policy_result policy_loss(Estimator const& estimator,
                          vector_view<std::type_identity_t<T> const> log_probs,
                          policy_batch<T> const& batch,
                          vector_view<std::type_identity_t<T>> d_log_probs,
                          vector_view<std::type_identity_t<T>> d_entropies = {}) {
  detail::check_policy_batch("policy_loss", estimator, batch, false);
  index_t const tokens = batch.token_count();
  if (log_probs.size != tokens || d_log_probs.size != tokens) {
    throw_shape_error("policy_loss: log_probs has ", log_probs.size, " and d_log_probs ",
                      d_log_probs.size, " entries, the batch has ", tokens, " tokens");
  }
  if (d_entropies.size != tokens && (estimator.entropy.active() || !d_entropies.empty())) {
    throw_shape_error("policy_loss: d_entropies has ", d_entropies.size, " entries, the batch has ",
                      tokens, " tokens (it may be empty without an entropy bonus)");
  }
  return detail::reduce_policy_loss<Estimator, T>(estimator, log_probs, batch, batch.entropies,
                                                  d_log_probs, d_entropies);
}

LAMINA_NAMESPACE_END
