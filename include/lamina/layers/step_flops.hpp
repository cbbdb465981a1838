// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Floating-point operations of training on one batch of rollouts, from shapes and a backward plan.
#pragma once

#include "lamina/core/view.hpp"
#include "lamina/layers/layer_needs.hpp"
#include "lamina/layers/transformer_shape.hpp"

LAMINA_NAMESPACE_BEGIN

/// Packed sequences, as far as costs depend on them.
///
/// tokens       of all sequences
/// token_pairs  sum of the squared lengths: what attention works on
struct packed_sequences {
  index_t tokens = 0;
  index_t token_pairs = 0;
};

/// `count` sequences of `length` tokens.
constexpr packed_sequences equal_sequences(index_t count, index_t length) noexcept {
  return {count * length, count * length * length};
}
/// Sequence s is tokens [offsets[s], offsets[s + 1]).
constexpr packed_sequences sequences_at(vector_view<index_t const> offsets) noexcept {
  packed_sequences result;
  for (index_t s = 0; s + 1 < offsets.size; ++s) {
    index_t const length = offsets[s + 1] - offsets[s];
    result.tokens += length;
    result.token_pairs += length * length;
  }
  return result;
}

/// What happens to one batch of rollouts.
///
/// sequences       of one optimizer step
/// logit_rows      positions of one optimizer step whose logits are wanted
/// mini_batches    optimizer steps in one epoch
/// epochs          passes over the batch
/// reference       whether log-probs of a reference model are taken, in a pass of their own
/// old_policy      whether those of the old policy are, rather than kept from sampling
/// prefix_reuse    activations entering the stop layer are kept from the first pass over the batch
/// rollout_rows    sequences sampled at once; 0 to leave sampling out
/// rollout_length  most tokens of one of them
/// rollout_tokens  most tokens in one forward pass of sampling: those of all prompts
struct step_shape {
  packed_sequences sequences{};
  index_t logit_rows = 0;
  index_t mini_batches = 1;
  index_t epochs = 1;
  bool reference = false;
  bool old_policy = false;
  bool prefix_reuse = false;
  index_t rollout_rows = 0;
  index_t rollout_length = 0;
  index_t rollout_tokens = 0;

  /// Forward passes over the batch.
  constexpr index_t pass_count() const noexcept {
    return epochs + (reference ? 1 : 0) + (old_policy ? 1 : 0);
  }
};

/// Operations of matrix products and attention, two for a multiply-add; what is done element by
/// element is not counted.
struct step_flops {
  index_t forward = 0;
  index_t activation_gradients = 0;
  index_t weight_gradients = 0;

  constexpr index_t total() const noexcept {
    return forward + activation_gradients + weight_gradients;
  }
};

namespace detail {

// Operations over the tokens of one optimizer step. With q and k the widths of all query and key
// heads, f that of the feed-forward network, T the length of a sequence, each token costs
//
//   forward   2 d (2 q + 2 k) + 6 d f + 2 q T   a layer, and 2 V d a logit row
//   d input   2 d (2 q + 2 k) + 6 d f + 5 q T   a layer, and 2 V d a logit row
//   d weight  2 a trained weight
//
// where the d input of a stop layer ends with what its trained tensors need.
class token_flops {
 public:
  constexpr token_flops(transformer_shape const& shape, packed_sequences const& sequences,
                        index_t logit_rows) noexcept
      : d_(shape.width),
        q_(shape.query_width),
        k_(shape.key_width),
        f_(shape.ffn_width),
        shape_(shape),
        sequences_(sequences),
        head_(2 * shape.vocab * shape.width * logit_rows) {}

  constexpr index_t forward(index_t first_layer) const noexcept {
    index_t const layer = linear(2 * d_ * (q_ + k_) + 3 * d_ * f_) + attention(2);
    return (shape_.layer_count - first_layer) * layer + head_;
  }
  constexpr index_t activation_gradients(backward_plan const& plan) const noexcept {
    bool const into_layers = plan.stop_layer() < shape_.layer_count;
    index_t total = into_layers || plan.trains_final_norm() ? head_ : 0;
    for (index_t layer = plan.stop_layer(); layer < shape_.layer_count; ++layer) {
      layer_needs const needs(plan, layer);
      if (needs.mlp_inner) total += linear(d_ * f_);
      if (needs.mlp_input) total += linear(2 * d_ * f_);
      if (needs.attention_inner) total += linear(d_ * q_) + attention(5);
      if (needs.attention_input) total += linear(d_ * (q_ + 2 * k_));
    }
    return total;
  }
  constexpr index_t weight_gradients(backward_plan const& plan) const noexcept {
    index_t elements = 0;
    for (index_t layer = 0; layer < shape_.layer_count; ++layer) {
      for (index_t r = 0; r < parameter_role_count; ++r) {
        auto const role = static_cast<parameter_role>(r);
        if (plan.weight_gradient(layer, role)) elements += shape_.matrix_elements(role);
      }
    }
    bool const head = shape_.tied_head ? plan.trains_embeddings() : plan.trains_head();
    return linear(elements) + (head ? head_ : 0);
  }

 private:
  constexpr index_t linear(index_t elements) const noexcept {
    return 2 * elements * sequences_.tokens;
  }
  // Causal: half of all pairs. Scores and mixtures are 2 products, their backward pass 5, since it
  // computes the scores again.
  constexpr index_t attention(index_t products) const noexcept {
    return products * q_ * sequences_.token_pairs;
  }

  index_t d_, q_, k_, f_;
  transformer_shape const& shape_;
  packed_sequences const& sequences_;
  index_t head_;
};

struct plan_value {
  char const* name;
  index_t value;
  index_t least;
};

// Throws unless every sum that follows fits an index_t.
constexpr void check_step(char const* function, transformer_shape const& shape,
                          backward_plan const& plan, step_shape const& step) {
  plan_value const values[] = {{"layer_count", shape.layer_count, 1},
                               {"width", shape.width, 1},
                               {"query_width", shape.query_width, 1},
                               {"key_width", shape.key_width, 1},
                               {"head_count", shape.head_count, 1},
                               {"ffn_width", shape.ffn_width, 1},
                               {"vocab", shape.vocab, 1},
                               {"tokens", step.sequences.tokens, 1},
                               {"token_pairs", step.sequences.token_pairs, step.sequences.tokens},
                               {"logit_rows", step.logit_rows, 1},
                               {"mini_batches", step.mini_batches, 1},
                               {"epochs", step.epochs, 1},
                               {"rollout_rows", step.rollout_rows, 0},
                               {"rollout_length", step.rollout_length, 0},
                               {"rollout_tokens", step.rollout_tokens, 0}};
  for (plan_value const& v : values) {
    if (v.value < v.least) {
      throw_config_error(function, ": ", v.name, " is ", v.value, ", expected at least ", v.least);
    }
  }
  if (step.logit_rows > step.sequences.tokens) {
    throw_config_error(function, ": logit_rows is ", step.logit_rows,
                       ", expected at most tokens = ", step.sequences.tokens);
  }
  if (plan.layer_count() != shape.layer_count) {
    throw_config_error(function, ": the plan is for ", plan.layer_count(),
                       " layers, the model has ", shape.layer_count);
  }
  auto const real = [](index_t count) { return static_cast<double>(count); };
  double const d = real(shape.width), q = real(shape.query_width), k = real(shape.key_width);
  double const tokens = real(step.sequences.tokens) + real(step.rollout_tokens) +
                        real(step.rollout_rows) * real(step.rollout_length);
  double const work =
      tokens * (real(shape.layer_count) * d * (2 * q + 2 * k + 3 * real(shape.ffn_width)) +
                2 * d * real(shape.vocab)) +
      real(shape.layer_count) * q * real(step.sequences.token_pairs);
  double const passes = real(step.mini_batches) * (real(step.epochs) + 2);
  if (work * passes > 0x1p58) {  // each is counted at most 16 times
    throw_config_error(function, ": the step needs about ", work * passes,
                       " multiply-adds, expected at most 2^58");
  }
}

}  // namespace detail

/// Operations of all passes over one batch of rollouts: the first forward pass runs every layer;
/// with prefix_reuse the others start at the stop layer.
///
/// Throws config_error for a plan of another layer count, a dimension or count below 1, more logit
/// rows than tokens, or numbers too large to count.
/// Source: docs/memory.md.
constexpr step_flops count_flops(transformer_shape const& shape, backward_plan const& plan,
                                 step_shape const& step) {
  detail::check_step("count_flops", shape, plan, step);
  detail::token_flops const flops(shape, step.sequences, step.logit_rows);
  index_t const first = flops.forward(0);
  index_t const later = step.prefix_reuse ? flops.forward(plan.frozen_prefix()) : first;
  index_t const steps = step.mini_batches * step.epochs;
  return {.forward = step.mini_batches * (first + (step.pass_count() - 1) * later),
          .activation_gradients = steps * flops.activation_gradients(plan),
          .weight_gradients = steps * flops.weight_gradients(plan)};
}

LAMINA_NAMESPACE_END
