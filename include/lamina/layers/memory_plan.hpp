// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bytes of training, from shapes and a backward plan, before anything is allocated.
#pragma once

#include "lamina/layers/step_flops.hpp"

LAMINA_NAMESPACE_BEGIN

/// Bytes of a number in each place.
struct number_formats {
  index_t weight = 4;
  index_t gradient = 4;
  index_t moment = 4;
  /// Of a copy of the trained weights, kept only where weights are narrower.
  index_t master = 4;
  index_t activation = 4;
  index_t logit = 4;
  index_t prefix = 4;
  /// Moments that the optimizer keeps for each parameter: 2 for AdamW, 1 for SGD with momentum.
  index_t moment_count = 2;
};

/// Mixed precision: weights, gradients and activations in BF16, the optimizer in FP32.
inline constexpr number_formats bf16_formats{
    .weight = 2, .gradient = 2, .activation = 2, .logit = 2, .prefix = 2};

/// Numbers a token that a layer saves where the member of layer_needs with the same name is set.
struct saved_activations {
  index_t mlp_inner = 0;
  index_t mlp_input = 0;
  index_t middle = 0;
  index_t attention_inner = 0;
  index_t attention_input = 0;
  index_t input = 0;
  index_t down = 0;
  index_t gate_up = 0;
  index_t output = 0;
  index_t qkv = 0;

  constexpr index_t total(layer_needs const& needs) const noexcept {
    return needs.mlp_inner * mlp_inner + needs.mlp_input * mlp_input + needs.middle * middle +
           needs.attention_inner * attention_inner + needs.attention_input * attention_input +
           needs.input * input + needs.down * down + needs.gate_up * gate_up +
           needs.output * output + needs.qkv * qkv;
  }
};

/// What a host allocates for activations, in numbers a token.
struct host_activations {
  /// In the activation format.
  saved_activations saved{};
  /// In FP32 whatever the format: log-sums of attention, inverse norms.
  saved_activations saved_statistics{};
  /// Of a layer's forward pass, shared by all layers that do not save them.
  index_t working = 0;
  /// Gradients of activations, shared by all layers.
  index_t gradients = 0;
  /// Whether these two share their memory.
  bool gradients_in_working = false;
  /// Outside the layers: a token, and a logit row besides its logits.
  index_t outside = 0;
  index_t outside_logit_row = 0;
  /// Numbers in all, however many tokens.
  index_t scratch = 0;
  /// Whether memory of sampling stays allocated during training, and the other way round.
  bool phases_overlap = false;
};

/// A host that saves what gradients need and recomputes nothing: residual streams, heads, attention
/// output and its log-sums, gate and up; inputs of linear maps where weights are trained.
constexpr host_activations lean_activations(transformer_shape const& shape) noexcept {
  index_t const d = shape.width, q = shape.query_width, f = shape.ffn_width;
  index_t const qkv = q + 2 * shape.key_width;
  return {.saved = {.mlp_inner = 2 * f,
                    .mlp_input = d,
                    .attention_inner = qkv + q,
                    .attention_input = d,
                    .down = f,
                    .gate_up = d,
                    .qkv = d},
          .saved_statistics = {.attention_inner = shape.head_count},
          .working = 2 * d + qkv + q + 3 * f,
          .gradients = 2 * d + qkv + q + 3 * f,
          .outside = d,
          .outside_logit_row = d};
}

/// What training takes, in bytes unless the name says otherwise.
struct memory_plan {
  index_t weights = 0;
  index_t gradients = 0;
  index_t moments = 0;
  index_t masters = 0;
  /// The reference's own copy of what is trained; it shares the rest.
  index_t reference = 0;
  /// Activations entering the stop layer, of all mini-batches.
  index_t prefix_cache = 0;
  index_t saved_activations = 0;
  index_t working_activations = 0;
  index_t logits = 0;
  index_t activation_gradients = 0;
  /// Keys and values of sampling.
  index_t rollout_cache = 0;
  /// Activations and logits of sampling.
  index_t rollout_working = 0;
  bool phases_overlap = false;

  index_t parameter_count = 0;
  index_t trained_parameter_count = 0;
  /// The trained weights: what an inference engine or a checkpoint needs after a step.
  index_t weight_sync = 0;
  /// Of all passes over one batch of rollouts.
  step_flops flops{};
  /// The same for training every tensor, without a prefix cache.
  step_flops full_flops{};

  /// Held all the time.
  constexpr index_t persistent() const noexcept {
    return weights + gradients + moments + masters + reference + prefix_cache;
  }
  /// Held in a training step, besides.
  constexpr index_t step() const noexcept {
    return saved_activations + working_activations + logits + activation_gradients;
  }
  /// Held while rollouts are sampled, besides.
  constexpr index_t rollout() const noexcept { return rollout_cache + rollout_working; }
  constexpr index_t total() const noexcept { return persistent() + step() + rollout(); }
  /// The most that is held at one time.
  constexpr index_t peak() const noexcept {
    if (phases_overlap) return total();
    return persistent() + (step() > rollout() ? step() : rollout());
  }
  constexpr double speed_up() const noexcept {
    return static_cast<double>(full_flops.total()) / static_cast<double>(flops.total());
  }
};

/// What training takes under a plan. `host` says what the host allocates for activations.
///
/// Throws config_error as count_flops, and for a number of no bytes.
constexpr memory_plan plan_memory(transformer_shape const& shape, backward_plan const& plan,
                                  step_shape const& step, host_activations const& host,
                                  number_formats const& bytes = {}) {
  detail::check_step("plan_memory", shape, plan, step);
  detail::plan_value const widths[] = {
      {"weight", bytes.weight, 1},         {"gradient", bytes.gradient, 1},
      {"moment", bytes.moment, 1},         {"master", bytes.master, 1},
      {"activation", bytes.activation, 1}, {"logit", bytes.logit, 1},
      {"prefix", bytes.prefix, 1},         {"moment_count", bytes.moment_count, 0}};
  for (detail::plan_value const& width : widths) {
    if (width.value < width.least || width.value > 16) {
      throw_config_error("plan_memory: number_formats::", width.name, " is ", width.value,
                         ", expected ", width.least, "..16");
    }
  }
  index_t const tokens = step.sequences.tokens, rows = step.logit_rows;
  index_t const d = shape.width, stop = plan.stop_layer();
  memory_plan m{.phases_overlap = host.phases_overlap};
  m.parameter_count = shape.parameter_count();
  m.trained_parameter_count = shape.trained_parameter_count(plan);
  index_t const trained = m.trained_parameter_count;
  m.weights = m.parameter_count * bytes.weight;
  m.gradients = trained * bytes.gradient;
  m.moments = trained * bytes.moment_count * bytes.moment;
  if (bytes.weight < bytes.master) m.masters = trained * bytes.master;
  if (step.reference) m.reference = trained * bytes.weight;
  m.weight_sync = trained * bytes.weight;
  if (step.prefix_reuse && plan.frozen_prefix() > 0) {
    m.prefix_cache = step.mini_batches * tokens * d * bytes.prefix;
  }

  for (index_t layer = stop; layer < shape.layer_count; ++layer) {
    layer_needs const needs(plan, layer);
    m.saved_activations += tokens * (host.saved.total(needs) * bytes.activation +
                                     host.saved_statistics.total(needs) * 4);
  }
  m.activation_gradients = tokens * host.gradients * bytes.activation;
  index_t working = host.working;
  if (host.gradients_in_working) {
    working = working > host.gradients ? working - host.gradients : 0;
  }
  m.working_activations =
      (tokens * (host.outside + working) + rows * host.outside_logit_row + host.scratch) *
      bytes.activation;
  m.logits = rows * shape.vocab * bytes.logit;

  index_t const rollout_rows = step.rollout_rows;
  m.rollout_cache = rollout_rows * step.rollout_length * shape.layer_count * 2 * shape.key_width *
                    bytes.activation;
  m.rollout_working =
      step.rollout_tokens * (host.working + host.outside) * bytes.activation +
      rollout_rows * (host.outside_logit_row * bytes.activation + shape.vocab * bytes.logit);

  m.flops = count_flops(shape, plan, step);
  step_shape full = step;
  full.prefix_reuse = false;
  m.full_flops = count_flops(shape, plan_full(shape.layer_count), full);
  return m;
}

LAMINA_NAMESPACE_END
