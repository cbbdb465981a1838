// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Policy losses on a device: log-probs, or logits, that lie in its memory become coefficients and
// gradients there; the host waits for the loss only if it asks for it.
#pragma once

#include "lamina/backend/device_vector.hpp"
#include "lamina/policy/detail/device_arguments.hpp"
#include "lamina/policy/detail/device_pass.hpp"
#include "lamina/policy/logits_loss.hpp"
#include "lamina/policy/offsets.hpp"

LAMINA_NAMESPACE_BEGIN

/// Where losses on a device leave their result, and the memory they work in. One report serves one
/// loss after another on the same stream, and all of them in a captured graph. Movable.
template <device_backend Backend>
class policy_report {
 public:
  /// For batches of at most `most_sequences` sequences.
  policy_report(Backend const& backend, index_t most_sequences)
      : records_(backend, most_sequences), call_(backend, 1) {}

  index_t most_sequences() const noexcept { return records_.size(); }
  /// The last result, in the memory of the device.
  policy_result const* on_device() const noexcept { return &call_.view().data->result; }

  /// Waits for the device and returns the result of the last loss.
  ///
  /// Throws what only the device could see, long after the call: shape_error if the offsets of the
  /// batch did not start at 0, ascend and end at the tokens (then every gradient was 0), and
  /// config_error if the batch had more active tokens than its denominators counted.
  policy_result read(Backend const& backend) const {
    detail::call_record const call = call_.to_host(backend)[0];
    if (call.broken_offsets != 0) {
      throw_shape_error("policy_report::read: ", call.broken_offsets,
                        " entries of batch.offsets or batch.group_offsets are no bounds; expected "
                        "offsets that start at 0, ascend and end at the tokens of the batch, those "
                        "of groups at its sequences");
    }
    if (call.result.metrics.active_tokens > counted_tokens_) {
      throw_config_error("policy_report::read: the batch had ", call.result.metrics.active_tokens,
                         " active tokens, its denominators.tokens was ", counted_tokens_,
                         "; expected the count of the whole step");
    }
    return call.result;
  }

  /// The memory, for a loss on `batch`. Throws shape_error if it has too many sequences.
  template <real T>
  detail::report_memory begin(policy_batch<T> const& batch) {
    index_t const sequences = batch.sequence_count(), groups = batch.group_offsets.size - 1;
    if (sequences > records_.size() || groups > records_.size()) {
      throw_shape_error("policy_loss: the batch has ", sequences, " sequences in ",
                        groups > 0 ? groups : index_t(0), " groups, the report is for ",
                        records_.size(), " at most");
    }
    counted_tokens_ = batch.denominators.tokens;
    index_t const rows = groups > sequences ? groups : sequences;
    return {records_.view().subview(0, rows), call_.view().data};
  }

 private:
  device_vector<Backend, detail::sequence_record> records_;
  device_vector<Backend, detail::call_record> call_;
  index_t counted_tokens_ = 0;
};

namespace detail {

// A group objective that a device can work group by group.
template <class Objective, class T>
concept groups_on_device = std::is_trivially_copyable_v<Objective> &&
    requires(Objective const& objective, policy_batch<T> const& batch, vector_view<T const> in,
             vector_view<T> out) {
  objective.template groups_of<T>(in, batch, in, out, out).visit(single_lane{}, index_t{});
  objective.check_batch_sizes("", batch);
};

// What the host can find wrong with a loss on a device, before anything is asked for.
template <class Estimator, real T>
void check_device_batch(char const* function, Estimator const& estimator,
                        policy_batch<T> const& batch, index_t tokens, bool has_entropies) {
  static_assert(policy_estimator<Estimator> || groups_on_device<Estimator, T>,
                "lamina: an objective over the rollouts of a group runs on a device if it is "
                "trivially copyable and has groups_of, see conspo");
  if (batch.offsets.size < (tokens > 0 ? 2 : 1)) {
    throw_shape_error(function, ": batch.offsets has ", batch.offsets.size, " entries for ", tokens,
                      " tokens; expected [sequences + 1] entries");
  }
  check_batch_sizes(function, batch, tokens);
  check_denominators(function, batch.denominators, batch.sequence_count(), 0);
  check_estimator_arrays(function, estimator, batch, tokens, has_entropies);
  if constexpr (group_objective<Estimator>) estimator.check_batch_sizes(function, batch);
}

template <device_backend Backend, real T>
void check_arrays(device_arguments<Backend>& arguments, policy_batch<T> const& batch) {
  arguments.reads("batch.offsets", batch.offsets);
  arguments.reads("batch.token_ids", batch.token_ids);
  arguments.reads("batch.old_log_probs", batch.old_log_probs);
  arguments.reads("batch.reference_log_probs", batch.reference_log_probs);
  arguments.reads("batch.rollout_log_probs", batch.rollout_log_probs);
  arguments.reads("batch.entropies", batch.entropies);
  arguments.reads("batch.selected", batch.selected);
  arguments.reads("batch.mask", batch.mask);
  arguments.reads("batch.advantages", batch.advantages);
  arguments.reads("batch.token_advantages", batch.token_advantages);
  arguments.reads("batch.group_offsets", batch.group_offsets);
}
template <device_backend Backend, real T>
void check_arrays(device_arguments<Backend>& arguments, policy_outputs<T> const& outputs) {
  arguments.writes("outputs.log_probs", outputs.log_probs);
  arguments.writes("outputs.d_log_probs", outputs.d_log_probs);
  arguments.writes("outputs.entropies", outputs.entropies);
  arguments.writes("outputs.d_entropies", outputs.d_entropies);
}

// From log-probs to coefficients and the result of the call; offsets have been checked.
template <device_backend Backend, policy_objective Estimator, real T>
void run_sequences(Backend const& backend, Estimator const& estimator, policy_batch<T> const& batch,
                   vector_view<T const> log_probs, vector_view<T const> entropies,
                   vector_view<T> d_log_probs, vector_view<T> d_entropies, report_memory memory) {
  if constexpr (group_objective<Estimator>) {
    auto const pass =
        estimator.template groups_of<T>(log_probs, batch, entropies, d_log_probs, d_entropies);
    vector_view<sequence_record> const groups =
        memory.records.subview(0, batch.group_offsets.size - 1);
    backend.executor().run(1, offsets_body{batch.group_offsets, batch.sequence_count(),
                                           &memory.call->broken_offsets, false});
    backend.executor().run(groups.size, group_body<std::remove_const_t<decltype(pass)>>{
                                            pass, log_probs.size, memory.call, groups});
    backend.executor().run(1, group_fold_body{groups, memory.call});
  } else {
    backend.executor().run(
        batch.sequence_count(),
        sequence_body<Estimator, T>{
            {estimator, log_probs.data, batch, entropies.empty() ? nullptr : entropies.data,
             d_log_probs.data, d_entropies.empty() ? nullptr : d_entropies.data},
            log_probs.size,
            memory.call,
            memory.records.data});
    backend.executor().run(
        1, fold_body<Estimator, T>{estimator, batch.denominators, memory.records, memory.call});
  }
}
template <device_backend Backend, policy_objective Estimator, real T>
void run_sequences(Backend const& backend, Estimator const& estimator, policy_batch<T> const& batch,
                   policy_outputs<T> const& outputs, report_memory memory) {
  run_sequences<Backend, Estimator, T>(backend, estimator, batch, outputs.log_probs,
                                       outputs.entropies, outputs.d_log_probs, outputs.d_entropies,
                                       memory);
}

template <device_backend Backend, real T>
report_memory begin_report(Backend const& backend, policy_report<Backend>& report,
                           policy_batch<T> const& batch, index_t tokens) {
  report_memory const memory = report.begin(batch);
  backend.executor().run(1, offsets_body{batch.offsets, tokens, &memory.call->broken_offsets});
  return memory;
}

// make(std::true_type) if entropies are wanted, make(std::false_type) otherwise, run over rows.
template <device_backend Backend, class Make>
void run_with_entropies(Backend const& backend, index_t rows, bool wanted, Make const& make) {
  if (wanted) {
    backend.executor().run(rows, make(std::true_type{}));
  } else {
    backend.executor().run(rows, make(std::false_type{}));
  }
}

}  // namespace detail

/// policy_loss from log-probs on a device: as on the host, with all arrays in its memory. Nothing
/// waits; the result goes to `report`. Metrics and loss equal the host's to rounding, and are the
/// same on every run.
///
/// Sizes and options, whether the device can use the arrays, and whether what is written lies apart
/// from all others (d_log_probs may be log_probs), are checked before anything is asked for:
/// shape_error, config_error, device_error. What the arrays hold only the device sees: see
/// policy_report::read. denominators and temperature are the host's, and stay what they were in a
/// captured graph.
template <device_backend Backend, policy_objective Estimator, real T>
void policy_loss(Backend const& backend, Estimator const& estimator,
                 vector_view<std::type_identity_t<T> const> log_probs, policy_batch<T> const& batch,
                 vector_view<std::type_identity_t<T>> d_log_probs, policy_report<Backend>& report,
                 vector_view<std::type_identity_t<T>> d_entropies = {}) {
  index_t const tokens = log_probs.size;
  detail::check_device_batch("policy_loss", estimator, batch, tokens, false);
  if (d_log_probs.size != tokens) {
    throw_shape_error("policy_loss: log_probs has ", tokens, " and d_log_probs ", d_log_probs.size,
                      " entries; expected one a token");
  }
  if (d_entropies.size != tokens && (estimator.entropy.active() || !d_entropies.empty())) {
    throw_shape_error("policy_loss: d_entropies has ", d_entropies.size, " entries, the batch has ",
                      tokens, " tokens (it may be empty without an entropy bonus)");
  }
  detail::device_arguments arguments(backend, "policy_loss");
  detail::check_arrays(arguments, batch);
  arguments.reads("log_probs", log_probs);
  arguments.writes("d_log_probs", d_log_probs, log_probs.data);
  arguments.writes("d_entropies", d_entropies);
  detail::report_memory const memory = detail::begin_report(backend, report, batch, tokens);
  detail::run_sequences<Backend, Estimator, T>(backend, estimator, batch, log_probs,
                                               batch.entropies, d_log_probs, d_entropies, memory);
}

/// Log-probs and entropies of the chosen tokens on a device, as on the host; nothing waits. NaN for
/// a token outside the vocabulary.
template <device_backend Backend, class T>
requires storage_scalar<std::remove_const_t<T>>
void token_log_probs(Backend const& backend, matrix_view<T> logits,
                     vector_view<std::int32_t const> token_ids,
                     vector_view<std::uint8_t const> mask, double temperature,
                     vector_view<compute_t<std::remove_const_t<T>>> log_probs,
                     vector_view<compute_t<std::remove_const_t<T>>> entropies = {}) {
  detail::check_stride("token_log_probs", "logits", logits);
  detail::check_rows("token_log_probs", "logits", logits.rows, token_ids, mask, temperature);
  detail::check_log_prob_outputs(logits, log_probs.size, entropies.size);
  detail::device_arguments arguments(backend, "token_log_probs");
  arguments.reads("logits", logits);
  arguments.reads("token_ids", token_ids);
  arguments.reads("mask", mask);
  arguments.writes("log_probs", log_probs);
  arguments.writes("entropies", entropies);
  detail::run_token_log_probs<Backend, std::remove_const_t<T>>(backend, logits, token_ids, mask,
                                                               temperature, log_probs, entropies);
}

/// policy_loss from logits on a device, which become d loss / d logits where they lie. As on the
/// host, with all arrays in the memory of the device; nothing waits, the result goes to `report`.
///
/// A token outside the vocabulary has log-prob NaN, counts as non-finite and gets gradient 0.
/// Otherwise as the log-prob form.
template <device_backend Backend, policy_objective Estimator, storage_scalar T>
void policy_loss(Backend const& backend, Estimator const& estimator, matrix_view<T> logits,
                 policy_batch<compute_t<T>> const& batch,
                 policy_outputs<compute_t<std::type_identity_t<T>>> outputs,
                 policy_report<Backend>& report) {
  using compute = compute_t<T>;
  index_t const tokens = logits.rows;
  detail::check_device_batch("policy_loss", estimator, batch, tokens, true);
  detail::check_outputs("policy_loss", outputs, tokens, estimator.entropy.active(),
                        (Estimator::reads & token_input::entropies) != 0);
  detail::check_stride("policy_loss", "logits", logits);
  detail::check_rows("policy_loss", "logits", tokens, batch.token_ids, batch.mask,
                     batch.temperature);
  detail::device_arguments arguments(backend, "policy_loss");
  detail::check_arrays(arguments, batch);
  arguments.writes("logits", logits);
  detail::check_arrays(arguments, outputs);

  bool const entropies = !outputs.entropies.empty();
  detail::report_memory const memory = detail::begin_report(backend, report, batch, tokens);
  if constexpr (detail::token_local<Estimator>) {
    backend.executor().run(batch.sequence_count(), detail::active_tokens_body<compute>{
                                                       batch, outputs.d_log_probs, memory.call});
    detail::run_with_entropies(backend, tokens, entropies, [&](auto with) {
      return policy_logits_body<with(), T, Estimator>{logits, batch, outputs, estimator};
    });
    detail::run_sequences<Backend, Estimator, compute>(backend, estimator, batch, outputs, memory);
  } else {
    detail::run_token_log_probs<Backend, T>(backend, logits, batch.token_ids, batch.mask,
                                            batch.temperature, outputs.log_probs,
                                            outputs.entropies);
    detail::run_sequences<Backend, Estimator, compute>(backend, estimator, batch, outputs, memory);
    backend.executor().run(tokens, logits_gradient_body<T>{logits, batch, outputs});
  }
}

LAMINA_NAMESPACE_END
