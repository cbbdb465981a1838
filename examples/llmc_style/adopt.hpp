// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The adoption: how lamina sees the engine, and a GRPO step that trains some of its layers. The
// engine itself knows nothing of it. docs/embedding.md states the lines between the marks.
#pragma once

#include "examples/llmc_style/sorting.hpp"
// [adopt]
#include "lamina/backend/eigen.hpp"
#include "lamina/io/layer_patch.hpp"
#include "lamina/lamina.hpp"

using role = lamina::parameter_role;

struct named_tensor {
  char const* name;
  role does;
};
// In the order of gpt2_tensor.
inline constexpr named_tensor gpt2_names[tensor_count] = {
    {"ln_1.weight", role::attention_norm},
    {"ln_1.bias", role::attention_norm},
    {"attn.qkv.weight", role::attention_qkv},
    {"attn.qkv.bias", role::attention_qkv},
    {"attn.proj.weight", role::attention_output},
    {"attn.proj.bias", role::attention_output},
    {"ln_2.weight", role::mlp_norm},
    {"ln_2.bias", role::mlp_norm},
    {"mlp.fc.weight", role::mlp_up},
    {"mlp.fc.bias", role::mlp_up},
    {"mlp.proj.weight", role::mlp_down},
    {"mlp.proj.bias", role::mlp_down},
    {"wte", role::embedding},
    {"wpe", role::embedding},
    {"ln_f.weight", role::final_norm},
    {"ln_f.bias", role::final_norm}};

/// The engine as a trainable_model. It has gradients for the layers that a plan trains, no others.
class adopted_gpt2 {
 public:
  using batch_type = int const*;  // tokens [B, T]

  explicit adopted_gpt2(gpt2* engine)
      : engine_(engine), layers_(engine->config.layers, stacks(engine), "h.") {}
  adopted_gpt2(gpt2* engine, lamina::backward_plan const& plan) : adopted_gpt2(engine) {
    gradients_.resize(static_cast<std::size_t>(layers_.gradient_size(plan)));
    layers_.set_gradients(plan, gradients_);
  }

  lamina::index_t layer_count() const { return layers_.layer_count(); }
  auto const& parameters(lamina::index_t layer) const { return layers_[layer]; }
  std::vector<lamina::parameter_view<float>> outer_parameters() const {
    std::vector<lamina::parameter_view<float>> frozen;
    for (int t = layer_tensors; t < tensor_count; ++t) {
      frozen.push_back({gpt2_names[t].name,
                        lamina::outside_layers,
                        gpt2_names[t].does,
                        {engine_->tensors[t], engine_->sizes[t]}});
    }
    return frozen;
  }
  lamina::matrix_view<float> forward(int const* tokens, lamina::backward_plan const&) {
    gpt2_forward(engine_, tokens);
    return {engine_->logits, engine_->B * engine_->T, engine_->config.vocab};
  }
  void backward(lamina::matrix_view<float const> d_logits, lamina::backward_plan const& plan) {
    std::fill(gradients_.begin(), gradients_.end(), 0.0f);
    float* g[tensor_count] = {};
    gpt2_head_backward(engine_, d_logits.data, g);
    for (lamina::index_t layer = layer_count() - 1; layer >= plan.stop_layer(); --layer) {
      for (std::size_t t = 0; t < layer_tensors; ++t) g[t] = layers_[layer][t].gradient.data;
      gpt2_layer_backward(engine_, layer, g, plan.activation_gradient(layer));
    }
  }

 private:
  static std::vector<lamina::stacked_tensor<float>> stacks(gpt2 const* engine) {
    std::vector<lamina::stacked_tensor<float>> list;
    for (int t = 0; t < layer_tensors; ++t) {
      list.push_back(
          {gpt2_names[t].name, gpt2_names[t].does, engine->tensors[t], engine->sizes[t]});
    }
    return list;
  }

  gpt2* engine_;
  lamina::stacked_parameters<float> layers_;
  std::vector<float> gradients_;
};

/// GRPO on a selection of layers, for episodes of one shape.
struct layer_grpo {
  layer_grpo(gpt2* engine, lamina::layer_set const& layers, episodes const& e, long group,
             double learning_rate)
      : plan(lamina::plan_backward(engine->config.layers, layers)),
        model(engine, plan),
        base(lamina::all_parameters(model)),
        optimizer(backend, lamina::trained_parameters(model, plan),
                  {.learning_rate = learning_rate, .weight_decay = 0}),
        groups(lamina::prompt_groups::uniform(e.B, group)),
        log_probs(static_cast<std::size_t>(e.B * e.T)),
        d_log_probs(log_probs.size()) {
    for (long b = 0; b <= e.B; ++b) offsets.push_back(b * e.T);
  }

  lamina::policy_result step(episodes const& e) {
    auto const advantages =
        grpo.advantages(lamina::vector_view<float const>(e.rewards, e.B), groups);
    lamina::policy_batch<float> batch{.offsets = offsets,
                                      .token_ids = {e.targets, e.B * e.T},
                                      .old_log_probs = {e.log_probs, e.B * e.T},
                                      .mask = {e.answered, e.B * e.T},
                                      .advantages = advantages.values};
    batch.denominators = lamina::denominators_of(batch);
    return lamina::train_step(backend, model, grpo, plan, e.inputs, batch, {log_probs, d_log_probs},
                              optimizer)
        .policy;
  }
  lamina::layer_patch<float> patch() { return {base, lamina::all_parameters(model)}; }

  lamina::eigen_backend<float> backend;
  lamina::grpo grpo{.surrogate = {.clip_low = 0.2, .clip_high = 0.28}};
  lamina::backward_plan plan;
  adopted_gpt2 model;
  lamina::model_hash base;
  lamina::adamw<lamina::eigen_backend<float>, float> optimizer;
  lamina::prompt_groups groups;
  std::vector<lamina::index_t> offsets;
  std::vector<float> log_probs, d_log_probs;
};
// [/adopt]
