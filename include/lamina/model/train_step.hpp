// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where layer selection and policy gradient meet: one optimizer step on one batch of rollouts.
#pragma once

#include <type_traits>

#include "lamina/model/transformer.hpp"
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
  using scalar = model_scalar_t<Model>;
  matrix_view<scalar> const logits = model_traits<Model>::forward(model, tokens, plan);
  policy_result const policy = policy_loss(backend, estimator, logits, batch, outputs);
  model_traits<Model>::backward(model, matrix_view<scalar const>(logits), plan);
  using status = decltype(optimizer.step(step_arguments...));
  return train_step_result<status>{policy, optimizer.step(step_arguments...)};
}

LAMINA_NAMESPACE_END
