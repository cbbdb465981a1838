// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/memory_plan.hpp"

#include <doctest/doctest.h>

#include "lamina/layers/selector.hpp"
#include "tests/layers/published_shapes.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

double gigabytes(index_t bytes) { return static_cast<double>(bytes) * 1e-9; }

// 16 sequences of 1024 tokens in BF16, with a reference.
memory_plan lean_plan(transformer_shape const& shape, backward_plan const& plan) {
  return plan_memory(
      shape, plan,
      {.sequences = equal_sequences(16, 1024), .logit_rows = 16 * 1024, .reference = true},
      lean_activations(shape), bf16_formats);
}

// Everything a small model takes, so that each line can be checked by hand.
constexpr transformer_shape small{.layer_count = 3,
                                  .width = 10,
                                  .query_width = 8,
                                  .key_width = 4,
                                  .head_count = 2,
                                  .ffn_width = 12,
                                  .vocab = 7};
// 10 (8 + 2 x 4) + 8 x 10 + 3 x 10 x 12, two norms.
constexpr index_t small_layer = 160 + 80 + 360 + 20;
// Powers of two, so that a sum shows its terms.
constexpr host_activations small_host{.saved = {.mlp_inner = 1,
                                                .mlp_input = 2,
                                                .middle = 4,
                                                .attention_inner = 8,
                                                .attention_input = 16,
                                                .input = 32,
                                                .down = 64,
                                                .gate_up = 128,
                                                .output = 256,
                                                .qkv = 512},
                                      .saved_statistics = {.attention_inner = 3},
                                      .working = 50,
                                      .gradients = 60,
                                      .outside = 10,
                                      .outside_logit_row = 20,
                                      .scratch = 1000};
constexpr step_shape small_step{.sequences = equal_sequences(2, 5), .logit_rows = 6};

}  // namespace

TEST_CASE("memory_plan: weights, gradients, optimizer and reference of published models in GB") {
  struct row {
    transformer_shape shape;
    index_t layer;
    double full, planned;
  };
  for (row const& r :
       {row{qwen3_1_7b, 14, 31, 4.25}, row{qwen3_4b, 18, 72, 9.7}, row{qwen3_8b, 18, 147, 19.5}}) {
    auto const one = plan_backward(r.shape.layer_count, single_layer(r.layer));
    double const full = gigabytes(lean_plan(r.shape, plan_full(r.shape.layer_count)).persistent());
    double const planned = gigabytes(lean_plan(r.shape, one).persistent());
    CHECK(full == doctest::Approx(r.full).epsilon(0.01));
    CHECK(planned == doctest::Approx(r.planned).epsilon(0.005));
    auto const middle = plan_backward(r.shape.layer_count, middle_layers(r.shape.layer_count, 10));
    double const share = gigabytes(lean_plan(r.shape, middle).persistent()) / full;
    CHECK(share > 0.315);
    CHECK(share < 0.375);
  }
}

TEST_CASE("memory_plan: saved activations of published models in GB for 16k tokens") {
  struct row {
    transformer_shape shape;
    index_t layer;
    double full, planned;
  };
  for (row const& r : {row{qwen3_1_7b, 14, 30.1, 10.7}, row{qwen3_4b, 18, 58.7, 21.1},
                       row{qwen3_8b, 18, 75, 26.1}, row{smollm2_135m, 15, 8.3, 2.9}}) {
    index_t const layers = r.shape.layer_count;
    auto const saved = [&](backward_plan const& plan) {
      return gigabytes(lean_plan(r.shape, plan).saved_activations);
    };
    double const full = saved(plan_full(layers));
    CHECK(full == doctest::Approx(r.full).epsilon(0.0035));
    CHECK(saved(plan_backward(layers, single_layer(r.layer))) ==
          doctest::Approx(r.planned).epsilon(0.0125));
    double const share = saved(plan_backward(layers, middle_layers(layers, 10))) / full;
    if (r.shape == smollm2_135m) continue;  // not in the published row
    CHECK(share > 0.515);
    CHECK(share < 0.585);
  }
}

TEST_CASE("memory_plan: weight sync of published models") {
  auto const factor = [](transformer_shape const& shape, layer_set const& layers) {
    memory_plan const m = lean_plan(shape, plan_backward(shape.layer_count, layers));
    return static_cast<double>(m.weights) / static_cast<double>(m.weight_sync);
  };
  CHECK(factor(qwen3_1_7b, single_layer(14)) == doctest::Approx(34).epsilon(0.01));
  CHECK(factor(qwen3_4b, single_layer(18)) == doctest::Approx(40).epsilon(0.01));
  CHECK(factor(qwen3_8b, single_layer(18)) == doctest::Approx(42).epsilon(0.015));
  CHECK(factor(qwen3_1_7b, middle_layers(28, 10)) == doctest::Approx(3.4).epsilon(0.01));
  CHECK(factor(qwen3_8b, middle_layers(36, 10)) == doctest::Approx(4.2).epsilon(0.015));

  memory_plan const m = lean_plan(smollm2_135m, plan_backward(30, single_layer(15)));
  CHECK(m.weights == 2 * 134'515'008);  // as its checkpoint counts them
  CHECK(m.weight_sync == 2 * 3'540'096);
}

TEST_CASE("memory_plan: every line of a small model by hand") {
  constexpr backward_plan plan = plan_backward(3, single_layer(1));
  constexpr memory_plan m = plan_memory(small, plan, small_step, small_host);
  static_assert(m.parameter_count == 2 * 70 + 10 + 3 * small_layer);
  static_assert(m.trained_parameter_count == small_layer);
  static_assert(m.weights == 4 * m.parameter_count);
  static_assert(m.gradients == 4 * small_layer && m.moments == 8 * small_layer);
  static_assert(m.masters == 0 && m.reference == 0 && m.prefix_cache == 0);
  static_assert(m.weight_sync == 4 * small_layer);
  // Layer 1 hands nothing down but trains everything, layer 2 the other way round; 10 tokens.
  static_assert(m.saved_activations == 10 * 4 * (1 + 2 + 4 + 8 + 16 + 64 + 128 + 256 + 512 + 3) +
                                           10 * 4 * (1 + 2 + 4 + 8 + 16 + 32 + 3));
  static_assert(m.working_activations == 4 * (10 * (10 + 50) + 6 * 20 + 1000));
  static_assert(m.logits == 4 * 6 * 7);
  static_assert(m.activation_gradients == 4 * 10 * 60);
  static_assert(m.rollout() == 0);
  CHECK(m.peak() == m.weights + 12 * small_layer + m.step());
}

TEST_CASE("memory_plan: numbers narrower than the optimizer's have masters") {
  constexpr backward_plan plan = plan_backward(3, single_layer(1));
  constexpr memory_plan m = plan_memory(small, plan, small_step, small_host, bf16_formats);
  CHECK(m.weights == 2 * m.parameter_count);
  CHECK(m.gradients == 2 * small_layer);
  CHECK(m.moments == 8 * small_layer);
  CHECK(m.masters == 4 * small_layer);
  // Statistics stay in FP32.
  CHECK(m.saved_activations == 10 * (2 * (991 + 63) + 4 * (3 + 3)));
  memory_plan const sgd = plan_memory(small, plan, small_step, small_host, {.moment_count = 1});
  CHECK(sgd.moments == 4 * small_layer);
}

TEST_CASE("memory_plan: only what the trained roles need is kept and differentiated") {
  auto const planned = [](role_set trained) {
    return plan_memory(small, plan_backward(3, single_layer(2), {.trained_roles = trained}),
                       small_step, small_host);
  };
  memory_plan const down = planned(roles(parameter_role::mlp_down));
  CHECK(down.trained_parameter_count == 120);
  CHECK(down.saved_activations == 10 * 4 * 64);
  memory_plan const attention = planned(attention_roles);
  CHECK(attention.trained_parameter_count == 160 + 80 + 10);
  CHECK(attention.saved_activations == 10 * 4 * (1 + 2 + 4 + 8 + 16 + 256 + 512 + 3));
  memory_plan const gate = planned(roles(parameter_role::mlp_gate));
  CHECK(gate.saved_activations == 10 * 4 * (1 + 128));
}

TEST_CASE("memory_plan: biases and head norms count, a tied head does not") {
  transformer_shape shape = small;
  shape.tied_head = true;
  shape.qkv_bias = true;
  shape.qk_norm = true;
  index_t const layer = small_layer + 8 + 4 + 4 + 4 + 4;
  auto const plan = plan_backward(3, layer_range(0, 1), {.embeddings = true, .head = true});
  memory_plan const m = plan_memory(shape, plan, small_step, small_host);
  CHECK(m.parameter_count == 70 + 10 + 3 * layer);
  CHECK(m.trained_parameter_count == 70 + 2 * layer);
  auto const key =
      plan_backward(3, single_layer(0), {.trained_roles = roles(parameter_role::attention_key)});
  CHECK(plan_memory(shape, key, small_step, small_host).trained_parameter_count == 44);
}

TEST_CASE("memory_plan: a prefix cache holds the whole batch, a reference what is trained") {
  step_shape step = small_step;
  step.mini_batches = 3;
  step.epochs = 2;
  step.reference = true;
  step.prefix_reuse = true;
  auto const plan = plan_backward(3, single_layer(2));
  memory_plan const m = plan_memory(small, plan, step, small_host, {.prefix = 2});
  CHECK(m.prefix_cache == 3 * 10 * 10 * 2);
  CHECK(m.reference == 4 * small_layer);
  // There is no prefix below layer 0.
  CHECK(plan_memory(small, plan_backward(3, single_layer(0)), step, small_host).prefix_cache == 0);
}

TEST_CASE("memory_plan: gradients of activations may lie where the forward pass worked") {
  auto const step = [](host_activations const& host) {
    return plan_memory(small, plan_full(3), small_step, host).step();
  };
  host_activations host = small_host;
  index_t const apart = step(host);
  host.gradients_in_working = true;
  CHECK(apart - step(host) == 4 * 10 * 50);
  host.working = 75;
  CHECK(apart - step(host) == 4 * 10 * 50 - 4 * 10 * 15);
}

TEST_CASE("memory_plan: sampling and training share memory unless the host keeps both") {
  step_shape step = small_step;
  step.rollout_rows = 8;
  step.rollout_length = 32;
  step.rollout_tokens = 24;
  auto const plan = plan_backward(3, single_layer(1));
  host_activations host = small_host;
  memory_plan const apart = plan_memory(small, plan, step, host);
  CHECK(apart.rollout_cache == 8 * 32 * 3 * 2 * 4 * 4);
  CHECK(apart.rollout_working == 4 * (24 * (50 + 10) + 8 * (20 + 7)));
  CHECK(apart.peak() == apart.persistent() + std::max(apart.step(), apart.rollout()));
  host.phases_overlap = true;
  memory_plan const overlapping = plan_memory(small, plan, step, host);
  CHECK(overlapping.peak() == overlapping.total());
  CHECK(overlapping.peak() == apart.persistent() + apart.step() + apart.rollout());
}

TEST_CASE("memory_plan: the gain of a selection is that of its operations") {
  step_shape step = small_step;
  step.epochs = 2;
  step.prefix_reuse = true;
  auto const plan = plan_backward(3, single_layer(2));
  memory_plan const m = plan_memory(small, plan, step, small_host);
  CHECK(m.flops.total() == count_flops(small, plan, step).total());
  step.prefix_reuse = false;
  CHECK(m.full_flops.total() == count_flops(small, plan_full(3), step).total());
  CHECK(m.speed_up() == doctest::Approx(static_cast<double>(m.full_flops.total()) /
                                        static_cast<double>(m.flops.total())));
}

TEST_CASE("memory_plan: shapes that make no sense are refused by name") {
  auto const plan = plan_backward(3, single_layer(2));
  CHECK_THROWS_WITH_AS(plan_memory(small, plan, small_step, small_host, {.weight = 0}),
                       "plan_memory: number_formats::weight is 0, expected 1..16", config_error);
  CHECK_THROWS_WITH_AS(
      plan_memory(small, plan_backward(4, single_layer(2)), small_step, small_host),
      "plan_memory: the plan is for 4 layers, the model has 3", config_error);
  transformer_shape no_width = small;
  no_width.width = 0;
  CHECK_THROWS_WITH_AS(plan_memory(no_width, plan, small_step, small_host),
                       "plan_memory: width is 0, expected at least 1", config_error);
}
