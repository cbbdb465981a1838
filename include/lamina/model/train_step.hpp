// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where layer selection and policy gradient meet: one optimizer step on one batch of rollouts.
#pragma once

#include <type_traits>

#include "lamina/model/prefix_cache.hpp"
#include "lamina/policy/device_loss.hpp"
#include "lamina/policy/logits_loss.hpp"

LAMINA_NAMESPACE_BEGIN

/// Something that applies the gradients of the parameters it was made for: step(arguments...), such
/// as lamina::adamw with step() or step(learning_rate).
template <class O, class... Arguments>
concept gradient_optimizer = requires(O& optimizer, Arguments const&... arguments) {
  optimizer.step(arguments...);
};

/// What one step did: the loss and its metrics, and what the optimizer reports.
template <class Status>
struct train_step_result {
  policy_result policy;
  Status optimizer;
};

namespace detail {

// From logits to the step.
template <class Backend, class Model, class Estimator, class Optimizer, class... StepArguments>
auto step_from_logits(Backend const& backend, Model& model, Estimator const& estimator,
                      backward_plan const& plan, matrix_view<model_logit_t<Model>> logits,
                      policy_batch<compute_t<model_logit_t<Model>>> const& batch,
                      policy_outputs<compute_t<model_logit_t<Model>>> const& outputs,
                      Optimizer& optimizer, StepArguments const&... step_arguments) {
  static_assert(!device_backend<Backend>,
                "lamina: train_step on a device leaves its result in a policy_report: pass one "
                "after the outputs");
  policy_result const policy = policy_loss(backend, estimator, logits, batch, outputs);
  model_traits<Model>::backward(model, matrix_view<model_logit_t<Model> const>(logits), plan);
  using status = decltype(optimizer.step(step_arguments...));
  return train_step_result<status>{policy, optimizer.step(step_arguments...)};
}

// The same on a device, where it is only asked for.
template <device_backend Backend, class Model, class Estimator, class Optimizer,
          class... StepArguments>
void ask_for_step(Backend const& backend, Model& model, Estimator const& estimator,
                  backward_plan const& plan, matrix_view<model_logit_t<Model>> logits,
                  policy_batch<compute_t<model_logit_t<Model>>> const& batch,
                  policy_outputs<compute_t<model_logit_t<Model>>> const& outputs,
                  policy_report<Backend>& report, Optimizer& optimizer,
                  StepArguments const&... step_arguments) {
  policy_loss(backend, estimator, logits, batch, outputs, report);
  model_traits<Model>::backward(model, matrix_view<model_logit_t<Model> const>(logits), plan);
  optimizer.step(step_arguments...);
}

}  // namespace detail

/// forward by plan, logits to gradients in place, backward by plan, optimizer step.
///
/// tokens     the model's own batch; its logits come back as [tokens, vocab], one row a token of
///            `batch`, in the same order
/// batch      the chosen tokens, their old log-probs and advantages, the step's denominators
/// outputs    [tokens] buffers for log-probs, coefficients and, if given, entropies
/// optimizer  made for trained_parameters(model, plan); further arguments go to its step()
///
/// The host repeats it over mini-batches and epochs. Throws as policy_loss does; the weights are
/// then unchanged.
template <tensor_backend Backend, trainable_model Model, policy_estimator Estimator,
          class Optimizer, class... StepArguments>
requires gradient_optimizer<Optimizer, StepArguments...>
auto train_step(
    Backend const& backend, Model& model, Estimator const& estimator, backward_plan const& plan,
    typename model_traits<Model>::batch_type const& tokens,
    policy_batch<compute_t<model_scalar_t<Model>>> const& batch,
    policy_outputs<std::type_identity_t<compute_t<model_scalar_t<Model>>>> const& outputs,
    Optimizer& optimizer, StepArguments const&... step_arguments) {
  return detail::step_from_logits(backend, model, estimator, plan,
                                  model_traits<Model>::forward(model, tokens, plan), batch, outputs,
                                  optimizer, step_arguments...);
}

/// The same from a cached prefix: the layers below it do not run.
///
/// prefix  the rows of `tokens` in a filled prefix_cache
///
/// Old log-probs taken from prefix.forward(model, tokens, plan) with these same tokens, by
/// token_log_probs at the batch's temperature, make every importance ratio of the first step
/// exactly 1. Throws also as cached_prefix::forward does.
template <tensor_backend Backend, prefix_model Model, policy_estimator Estimator, class Storage,
          class Guard, class Optimizer, class... StepArguments>
requires gradient_optimizer<Optimizer, StepArguments...>
auto train_step(
    Backend const& backend, Model& model, Estimator const& estimator, backward_plan const& plan,
    cached_prefix<Model, Storage, Guard> const& prefix,
    typename model_traits<Model>::batch_type const& tokens,
    policy_batch<compute_t<model_scalar_t<Model>>> const& batch,
    policy_outputs<std::type_identity_t<compute_t<model_scalar_t<Model>>>> const& outputs,
    Optimizer& optimizer, StepArguments const&... step_arguments) {
  return detail::step_from_logits(backend, model, estimator, plan,
                                  prefix.forward(model, tokens, plan), batch, outputs, optimizer,
                                  step_arguments...);
}

/// train_step on a device: model, arrays and optimizer have their numbers in its memory. Returns
/// nothing and waits for nothing; report.read and optimizer.read_status do, when the host wants to
/// know.
///
///   lamina::policy_report report(backend, most_sequences);
///   lamina::train_step(backend, model, grpo, plan, tokens, batch, outputs, report, optimizer);
///
/// Throws as policy_loss on a device does, and what the model throws: out of memory, say. Weights
/// and state are then unchanged, for the optimizer's step is the last thing that is asked for.
template <device_backend Backend, trainable_model Model, policy_objective Estimator,
          class Optimizer, class... StepArguments>
requires gradient_optimizer<Optimizer, StepArguments...>
void train_step(
    Backend const& backend, Model& model, Estimator const& estimator, backward_plan const& plan,
    typename model_traits<Model>::batch_type const& tokens,
    policy_batch<compute_t<model_scalar_t<Model>>> const& batch,
    policy_outputs<std::type_identity_t<compute_t<model_scalar_t<Model>>>> const& outputs,
    policy_report<Backend>& report, Optimizer& optimizer, StepArguments const&... step_arguments) {
  detail::ask_for_step(backend, model, estimator, plan,
                       model_traits<Model>::forward(model, tokens, plan), batch, outputs, report,
                       optimizer, step_arguments...);
}

/// The same from a cached prefix, as on the host.
template <device_backend Backend, prefix_model Model, policy_objective Estimator, class Storage,
          class Guard, class Optimizer, class... StepArguments>
requires gradient_optimizer<Optimizer, StepArguments...>
void train_step(
    Backend const& backend, Model& model, Estimator const& estimator, backward_plan const& plan,
    cached_prefix<Model, Storage, Guard> const& prefix,
    typename model_traits<Model>::batch_type const& tokens,
    policy_batch<compute_t<model_scalar_t<Model>>> const& batch,
    policy_outputs<std::type_identity_t<compute_t<model_scalar_t<Model>>>> const& outputs,
    policy_report<Backend>& report, Optimizer& optimizer, StepArguments const&... step_arguments) {
  detail::ask_for_step(backend, model, estimator, plan, prefix.forward(model, tokens, plan), batch,
                       outputs, report, optimizer, step_arguments...);
}

LAMINA_NAMESPACE_END
