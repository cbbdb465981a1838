// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The adoption: the engine's memory, threads and products as a backend of lamina, its layers as
// lamina sees them, and a GRPO step from hidden states. The engine itself knows nothing of it.
// docs/embedding.md states the lines between the marks.
#pragma once

#include "examples/no_exceptions/task.hpp"
// [adopt]
#include "lamina/io/layer_patch.hpp"
#include "lamina/lamina.hpp"

namespace engine {

struct pool_for {
  thread_pool* threads;

  template <class F>
  void operator()(lamina::index_t count, lamina::index_t grain, F&& f) const {
    threads->run(count, grain, f);
  }
};

struct arena_backend {
  using scalar_type = float;
  using matrix_type = matrix;
  runtime* host;

  matrix make_matrix(lamina::index_t rows, lamina::index_t cols) const {
    return host->make_matrix(rows, cols);
  }
  static lamina::matrix_view<float> view(matrix& m) { return {m.data, m.rows, m.cols, m.stride}; }
  static lamina::matrix_view<float const> view(matrix const& m) {
    return {m.data, m.rows, m.cols, m.stride};
  }
  lamina::host_rows<pool_for> executor() const { return {{&host->threads}}; }
  void gemm(lamina::transpose ta, lamina::transpose tb, float alpha,
            lamina::matrix_view<float const> a, lamina::matrix_view<float const> b, float beta,
            lamina::matrix_view<float> c) const {
    auto const as_matrix = [](auto v) {
      return matrix{const_cast<float*>(v.data), v.rows, v.cols, v.stride};
    };
    product(*host, ta == lamina::transpose::yes, tb == lamina::transpose::yes, alpha, as_matrix(a),
            as_matrix(b), beta, as_matrix(c));
  }
};
static_assert(lamina::check_backend<arena_backend>());

inline lamina::parameter_view<float> view_of(tensor const& t, lamina::index_t layer,
                                             lamina::parameter_role role) {
  return {
      t.name, layer, role, {t.weight.data, t.weight.size()}, {t.gradient.data, t.gradient.size()}};
}

}  // namespace engine

template <>
struct lamina::model_traits<engine::model> {
  using role = parameter_role;
  static index_t layer_count(engine::model const& m) { return m.size.layers; }
  static std::vector<parameter_view<float>> parameters(engine::model const& m, index_t layer) {
    // In the order of engine::layer_tensor.
    constexpr role roles[] = {role::attention_norm,  role::attention_query,  role::attention_key,
                              role::attention_value, role::attention_output, role::mlp_norm,
                              role::mlp_up,          role::mlp_down};
    std::vector<parameter_view<float>> list;
    for (int t = 0; t < engine::layer_tensor_count; ++t) {
      list.push_back(engine::view_of(m.layers[layer].tensors[t], layer, roles[t]));
    }
    return list;
  }
  static std::vector<parameter_view<float>> outer_parameters(engine::model const& m) {
    return {engine::view_of(m.embedding, outside_layers, role::embedding),
            engine::view_of(m.positions, outside_layers, role::embedding),
            engine::view_of(m.final_norm, outside_layers, role::final_norm),
            engine::view_of(m.head, outside_layers, role::head)};
  }
};

namespace engine {

/// GRPO on a selection of layers. All it needs in a step is taken from the arena before the first.
struct layer_grpo {
  layer_grpo(model* trained, lamina::layer_set const& layers, long episode_count, long group,
             double learning_rate)
      : m(trained),
        backend{trained->host},
        plan(lamina::plan_backward(trained->size.layers, layers)),
        base(lamina::all_parameters(*trained)),
        optimizer(backend, with_gradients(), {.learning_rate = learning_rate, .weight_decay = 0}),
        rewards{.groups = lamina::prompt_groups::uniform(episode_count, group)},
        per_token(backend.make_matrix(3, episode_count)),
        offsets(trained->host->memory.take<lamina::index_t>(episode_count + 1)) {
    for (long i = 0; i <= episode_count; ++i) offsets[i] = i;
    reserve(m, episode_count, plan.frozen_prefix());
    states = {.hidden = backend.view(m->normed), .d_hidden = backend.view(m->d_last)};
    head = {backend.view(m->head.weight)};
    scratch = backend.make_matrix(1, lamina::hidden_scratch_size(states, head));
  }

  lamina::policy_result step(episodes const& e) {
    auto const buffer = [&](long i) { return backend.view(per_token).row(i); };
    rewards.rewards = {e.rewards, e.count};
    grpo.advantage.compute(rewards, buffer(0));
    forward(m, e.prompts);
    lamina::policy_batch<float> const batch{
        .offsets = {offsets, e.count + 1},
        .token_ids = {e.answers, e.count},
        .old_log_probs = {e.log_probs, e.count},
        .advantages = buffer(0),
        .denominators = {.sequences = e.count, .tokens = e.count}};
    auto const result = lamina::policy_loss(backend, grpo, states, head, batch,
                                            {buffer(1), buffer(2)}, backend.view(scratch).row(0));
    for (long const l : plan.layers()) {
      for (tensor const& t : m->layers[l].tensors) clear(t.gradient);
    }
    norm_backward(m, m->d_last);
    for (long l = m->size.layers - 1; l >= plan.stop_layer(); --l) {
      layer_backward(m, l, plan.activation_gradient(l));
    }
    optimizer.step();
    return result;
  }

  std::vector<lamina::parameter_view<float>> with_gradients() {
    for (long const l : plan.layers()) {
      for (tensor& t : m->layers[l].tensors) t.gradient = m->host->make_like(t.weight);
    }
    return lamina::trained_parameters(*m, plan);
  }

  model* m;
  arena_backend backend;
  lamina::grpo grpo{.surrogate = {.clip_low = 0.2, .clip_high = 0.28}};
  lamina::backward_plan plan;
  lamina::model_hash base;
  lamina::adamw<arena_backend, float> optimizer;
  lamina::reward_batch<float> rewards;
  matrix per_token, scratch;
  lamina::index_t* offsets;
  lamina::hidden_states<float> states;
  lamina::frozen_head<float> head;
};

}  // namespace engine
// [/adopt]
