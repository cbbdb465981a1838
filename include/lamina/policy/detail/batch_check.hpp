// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a policy loss asks of its batch, checked before anything is written.
#pragma once

#include "lamina/core/error.hpp"
#include "lamina/policy/detail/check_denominators.hpp"
#include "lamina/policy/policy_batch.hpp"
#include "lamina/policy/policy_token.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Sizes of what every batch of `tokens` tokens brings along; reads no array.
template <real T>
void check_batch_sizes(char const* function, policy_batch<T> const& batch, index_t tokens) {
  index_t const sequences = batch.sequence_count();
  if (!batch.mask.empty() && batch.mask.size != tokens) {
    throw_shape_error(function, ": batch.mask has ", batch.mask.size, " entries, the batch has ",
                      tokens, " tokens");
  }
  bool const by_sequence = batch.advantages.size == sequences && batch.token_advantages.empty();
  bool const by_token = batch.token_advantages.size == tokens && batch.advantages.empty();
  if (!by_sequence && !by_token) {
    throw_shape_error(function, ": batch.advantages has ", batch.advantages.size,
                      " and batch.token_advantages ", batch.token_advantages.size,
                      " entries; expected ", sequences, " advantages (one a sequence) or ", tokens,
                      " token_advantages (one a token), and the other empty");
  }
}

// What a batch has to bring along, whatever the estimator. Returns the number of active tokens.
template <real T>
index_t check_batch_shape(char const* function, policy_batch<T> const& batch) {
  if (batch.offsets.size < 1 || batch.offsets[0] != 0) {
    throw_shape_error(function, ": batch.offsets has ", batch.offsets.size,
                      " entries; expected [sequences + 1] entries that start at 0");
  }
  for (index_t i = 1; i < batch.offsets.size; ++i) {
    if (batch.offsets[i] < batch.offsets[i - 1]) {
      throw_shape_error(function, ": batch.offsets[", i, "] is ", batch.offsets[i], ", below ",
                        batch.offsets[i - 1], " before it; expected ascending offsets");
    }
  }
  check_batch_sizes(function, batch, batch.token_count());
  index_t const sequences = batch.sequence_count();
  index_t active = 0;
  for (index_t i = 0; i < sequences; ++i) active += batch.active_tokens(i);
  check_denominators(function, batch.denominators, sequences, active);
  return active;
}

// The options of an estimator and the sizes of the arrays that it reads; reads no array.
// `has_entropies` says that entropies come from elsewhere.
template <class Estimator, real T>
void check_estimator_arrays(char const* function, Estimator const& estimator,
                            policy_batch<T> const& batch, index_t tokens, bool has_entropies) {
  estimator.check();
  auto const per_token = [&](char const* name, index_t size, bool needed) {
    if (needed && size != tokens) {
      throw_shape_error(function, ": batch.", name, " has ", size, " entries, the batch has ",
                        tokens, " tokens");
    }
  };
  auto const read = [](unsigned array) { return (Estimator::reads & array) != 0; };
  per_token("old_log_probs", batch.old_log_probs.size, read(token_input::old_log_probs));
  per_token("rollout_log_probs", batch.rollout_log_probs.size,
            read(token_input::rollout_log_probs));
  per_token("reference_log_probs", batch.reference_log_probs.size, estimator.kl.active());
  per_token("selected", batch.selected.size, read(token_input::selected));
  // Where they are not needed they are still averaged.
  per_token("entropies", batch.entropies.size,
            !has_entropies && (!batch.entropies.empty() || read(token_input::entropies) ||
                               estimator.entropy.active()));
  if constexpr (requires { Estimator::one_advantage_per_sequence; }) {
    if (Estimator::one_advantage_per_sequence && !batch.token_advantages.empty()) {
      throw_shape_error(function, ": batch.token_advantages has ", batch.token_advantages.size,
                        " entries; this surrogate needs one advantage a sequence");
    }
  }
}

// Everything a policy loss can get wrong about its batch, before anything is written.
template <class Estimator, real T>
void check_policy_batch(char const* function, Estimator const& estimator,
                        policy_batch<T> const& batch, bool has_entropies) {
  check_batch_shape(function, batch);
  check_estimator_arrays(function, estimator, batch, batch.token_count(), has_entropies);
  if constexpr (requires { estimator.check_batch(function, batch); }) {
    estimator.check_batch(function, batch);
  }
}

}  // namespace detail

LAMINA_NAMESPACE_END
