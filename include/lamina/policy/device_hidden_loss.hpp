// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The hidden form of a policy loss on a device: hidden states and the head's weights become
// d loss / d hidden (and d loss / d head) in its memory; logits exist for one chunk at a time.
#pragma once

#include "lamina/policy/detail/device_hidden_pass.hpp"
#include "lamina/policy/hidden_loss.hpp"

LAMINA_NAMESPACE_BEGIN

/// Bytes of device memory that device_hidden_scratch_size stays below, unless 64 rows need more.
inline constexpr index_t default_device_hidden_budget = 320'000'000;

/// Elements (of float; of double for double states) of the scratch in device memory that
/// policy_loss works in: room for as many tokens at a time as `budget` bytes hold. Reads the shapes
/// of its arguments only. A scratch for more tokens serves fewer as well.
template <device_backend Backend, storage_scalar T, output_head Head, class Logits = wide_logits>
index_t device_hidden_scratch_size(Backend const& /*backend*/, hidden_states<T> const& states,
                                   Head const& head, index_t budget = default_device_hidden_budget,
                                   Logits = {}) {
  detail::device_hidden_layout<Backend, T, Head, Logits> const layout(states, head);
  index_t const most = layout.rows_in(budget / static_cast<index_t>(sizeof(compute_t<T>)));
  return layout.size(detail::even_chunk(states.hidden.rows, most < 64 ? 64 : most));
}

/// policy_loss from hidden states and the weights of the head on a device: as on the host, with all
/// arrays and the scratch in its memory. Nothing waits, the result goes to `report`.
///
/// scratch  device_hidden_scratch_size(backend, states, head) elements, with the same Logits
///
/// A chunk takes two matrix products, three with a trained head, over backend.gemm; logits are
/// computed twice where the host's form does. Rows are taken as they come, masked ones with them:
/// which are masked only the device knows. Rows whose mask is 0 and rows with non-finite values get
/// gradient 0, and what is not finite in them meets no product whose result is kept.
///
/// bf16 states with a bf16 head are multiplied as they lie where backend.gemm<bf16, float> exists:
/// logits are kept in float, or in bf16 with narrow_logits{}, d logits are rounded to bf16 for the
/// way back, d weights add up in float. Other narrow types, and states and head of two types, are
/// converted chunk by chunk and block by block. Two roundings of narrow d_hidden as on the host.
///
/// Errors as in the logits form on a device; a scratch without room for one row is a shape_error.
template <device_backend Backend, policy_objective Estimator, storage_scalar T, output_head Head,
          class Logits = wide_logits>
void policy_loss(Backend const& backend, Estimator const& estimator, hidden_states<T> const& states,
                 Head const& head, policy_batch<compute_t<T>> const& batch,
                 policy_outputs<compute_t<T>> const& outputs, vector_view<compute_t<T>> scratch,
                 policy_report<Backend>& report, Logits = {}) {
  using scalar = typename Backend::scalar_type;
  static_assert(std::same_as<compute_t<T>, scalar> &&
                    std::same_as<compute_t<typename Head::scalar_type>, scalar>,
                "lamina: hidden states and head are computed in the scalar type of the backend: "
                "double with double, float with float, bf16 and f16");
  index_t const tokens = states.hidden.rows;
  detail::check_device_batch("policy_loss", estimator, batch, tokens, true);
  detail::check_outputs("policy_loss", outputs, tokens, estimator.entropy.active(),
                        (Estimator::reads & token_input::entropies) != 0);
  detail::check_hidden("policy_loss", states, head, tokens);
  detail::check_rows("policy_loss", "hidden", tokens, batch.token_ids, batch.mask,
                     batch.temperature);
  detail::device_hidden_layout<Backend, T, Head, Logits> const layout(states, head);
  if (tokens > 0 && scratch.size < layout.size(1)) {
    throw_shape_error(
        "policy_loss: scratch has ", scratch.size, " elements, expected at least ", layout.size(1),
        " for one token at a time; device_hidden_scratch_size gives ",
        device_hidden_scratch_size(backend, states, head, default_device_hidden_budget, Logits{}));
  }
  detail::device_arguments arguments(backend, "policy_loss");
  detail::check_arrays(arguments, batch);
  arguments.reads("hidden", states.hidden);
  arguments.reads("head.weights", head.weights);
  if constexpr (Head::trained) arguments.writes("head.d_weights", head.d_weights);
  arguments.writes("d_hidden", states.d_hidden, states.hidden.data);
  arguments.writes("scratch", scratch);
  detail::check_arrays(arguments, outputs);

  index_t const rows =
      tokens > 0 ? detail::even_chunk(tokens, layout.rows_in(scratch.size)) : index_t(1);
  detail::report_memory const memory = detail::begin_report(backend, report, batch, tokens);
  detail::device_hidden_pass<Backend, Estimator, T, Head, Logits>{
      backend, estimator, states, head, batch, outputs, layout, rows, scratch.data, memory}
      .run();
}

LAMINA_NAMESPACE_END
