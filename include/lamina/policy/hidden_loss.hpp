// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The hidden form of a policy loss: hidden states and the head's weights become d loss / d hidden
// (and d loss / d head), chunk by chunk; logits exist for one chunk of tokens at a time.
#pragma once

#include "lamina/policy/detail/hidden_pass.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Shapes of the hidden form that are not the batch's or the outputs' own.
template <storage_scalar T, output_head Head>
void check_hidden(char const* function, hidden_states<T> const& states, Head const& head,
                  index_t tokens) {
  index_t const vocab = head.weights.rows, width = states.hidden.cols;
  auto const expect = [&](char const* name, auto matrix, index_t rows) {
    if (matrix.rows != rows || matrix.cols != width) {
      throw_shape_error(function, ": ", name, " is ", matrix.rows, " x ", matrix.cols,
                        ", expected ", rows, " x ", width);
    }
    check_stride(function, name, matrix);
  };
  if (states.hidden.rows != tokens) {
    throw_shape_error(function, ": hidden has ", states.hidden.rows, " rows, the batch has ",
                      tokens, " tokens");
  }
  if (head.weights.cols != width) {
    throw_shape_error(function, ": head.weights has ", head.weights.cols, " columns, hidden has ",
                      width, "; expected one width");
  }
  expect("hidden", states.hidden, tokens);
  expect("d_hidden", states.d_hidden, tokens);
  expect("head.weights", head.weights, vocab);
  if constexpr (Head::trained) expect("head.d_weights", head.d_weights, vocab);
}

}  // namespace detail

/// Policy loss from hidden states and the weights of the head: [tokens, vocab] logits never exist.
/// No allocation; everything is done in `scratch`, in chunks of as many tokens as it holds.
///
/// states   [tokens, width]  hidden states in, d loss / d hidden out
/// head     [vocab, width]   frozen_head, or trained_head to have d loss / d weights as well
/// outputs  [tokens]         as in the logits form
/// scratch                   hidden_scratch_size(states, head) elements; room for one row of logits
///                           suffices, and is slow. Must not overlap anything else.
/// Hidden states and head may have different types that are computed in the backend's; a narrow
/// head is converted block by block within the scratch.
///
/// A chunk takes two matrix products, three with a trained head. Logits are computed twice where a
/// coefficient depends on its whole sequence or group and the head is trained or an entropy bonus
/// is active; without either, rows of d_hidden are scaled at the end, and narrow ones rounded
/// twice. Rows whose mask is 0 and rows with non-finite values get gradient 0 and enter no product.
///
/// Loss, metrics and outputs are those of the logits form on the logits that the backend's gemm
/// computes. The size of the scratch changes them and d_hidden as far as a row of a gemm depends on
/// how many rows there are, and the order of summation in d_weights. Bit-identical from run to run
/// and for any number of threads, if the gemm is. Throws shape_error or config_error before
/// anything is written.
template <tensor_backend Backend, policy_objective Estimator, storage_scalar T, output_head Head>
policy_result policy_loss(Backend const& backend, Estimator const& estimator,
                          hidden_states<T> const& states, Head const& head,
                          policy_batch<compute_t<T>> const& batch,
                          policy_outputs<compute_t<T>> const& outputs,
                          vector_view<compute_t<T>> scratch) {
  using scalar = typename Backend::scalar_type;
  static_assert(host_backend<Backend>,
                "lamina: on a device policy_loss takes a policy_report as well and returns "
                "nothing: include lamina/policy/device_hidden_loss.hpp");
  static_assert(std::same_as<compute_t<T>, scalar> &&
                    std::same_as<compute_t<typename Head::scalar_type>, scalar>,
                "lamina: hidden states and head are computed in the scalar type of the backend: "
                "double with double, float with float, bf16 and f16");
  detail::check_policy_batch("policy_loss", estimator, batch, true);
  index_t const tokens = batch.token_count();
  detail::check_outputs("policy_loss", outputs, tokens, estimator.entropy.active(),
                        (Estimator::reads & token_input::entropies) != 0);
  detail::check_hidden("policy_loss", states, head, tokens);
  detail::hidden_layout<T, Head> const layout(states, head);
  detail::check_token_ids("policy_loss", "hidden", tokens, layout.vocab, batch.token_ids,
                          batch.mask, batch.temperature);
  if (tokens > 0 && scratch.size < layout.size(1)) {
    throw_shape_error("policy_loss: scratch has ", scratch.size, " elements, expected at least ",
                      layout.size(1), " for one token at a time; hidden_scratch_size gives ",
                      hidden_scratch_size(states, head));
  }
  index_t active = 0;
  for (index_t t = 0; t < tokens; ++t) active += batch.active(t) ? 1 : 0;
  index_t const rows = detail::even_chunk(active, layout.rows_in(scratch.size));
  return detail::hidden_pass<Backend, Estimator, T, Head>{
      backend, estimator, states, head, batch, outputs, layout, rows, scratch.data}
      .run();
}

LAMINA_NAMESPACE_END
