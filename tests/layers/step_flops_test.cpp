// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/step_flops.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "lamina/layers/selector.hpp"
#include "tests/layers/published_shapes.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

constexpr transformer_shape small{.layer_count = 3,
                                  .width = 10,
                                  .query_width = 8,
                                  .key_width = 4,
                                  .head_count = 2,
                                  .ffn_width = 12,
                                  .vocab = 7};
// 2 sequences of 5 tokens, 6 logit rows.
constexpr step_shape small_step{.sequences = equal_sequences(2, 5), .logit_rows = 6};
constexpr index_t head = 2 * 7 * 10 * 6;
constexpr index_t query = 2 * 10 * 8 * 10, key = 2 * 10 * 4 * 10, mlp = 2 * 10 * 12 * 10;
constexpr index_t linear = 2 * query + 2 * key + 3 * mlp;
constexpr index_t attention = 2 * 8 * 5 * 10;  // 2 q T a token

// The formulas of the published table: what reads from and writes to the residual stream is
// trained, norms are not, since a norm of the stop layer needs one product more.
double published_speed_up(transformer_shape const& shape, layer_set const& layers,
                          step_shape step) {
  auto const full = count_flops(shape, plan_full(shape.layer_count), [&] {
    step_shape s = step;
    s.prefix_reuse = false;
    return s;
  }());
  auto const plan =
      plan_backward(shape.layer_count, layers, {.trained_roles = layer_roles - norm_roles});
  return static_cast<double>(full.total()) /
         static_cast<double>(count_flops(shape, plan, step).total());
}

step_shape sixteen_sequences(index_t length) {
  return {.sequences = equal_sequences(16, length), .logit_rows = 16 * length};
}

}  // namespace

TEST_CASE("step_flops: speed-ups of published models") {
  struct row {
    transformer_shape shape;
    layer_set layers;
    double step, with_reuse, with_reference;
  };
  // The column of prefix reuse is that of a step after the first pass: of very many epochs.
  for (row const& r : {row{qwen3_1_7b, single_layer(14), 1.84, 2.47, 2.22},
                       row{qwen3_4b, single_layer(18), 1.89, 2.65, 2.35},
                       row{qwen3_8b, single_layer(18), 1.91, 2.69, 2.38},
                       row{qwen3_1_7b, middle_layers(28, 10), 1.47, 1.69, 1.61},
                       row{qwen3_8b, middle_layers(36, 10), 1.56, 1.88, 1.76},
                       row{smollm2_135m, single_layer(15), 1.83, 2.41, 2.18}}) {
    step_shape step = sixteen_sequences(r.shape == smollm2_135m ? 256 : 1024);
    CHECK(published_speed_up(r.shape, r.layers, step) == doctest::Approx(r.step).epsilon(0.003));
    step.prefix_reuse = true;
    step.epochs = 4;
    step.reference = true;
    CHECK(published_speed_up(r.shape, r.layers, step) ==
          doctest::Approx(r.with_reference).epsilon(0.003));
    step.epochs = 2000;
    step.reference = false;
    CHECK(published_speed_up(r.shape, r.layers, step) ==
          doctest::Approx(r.with_reuse).epsilon(0.003));
  }
}

TEST_CASE("step_flops: a small model by hand") {
  constexpr step_flops one = count_flops(small, plan_backward(3, single_layer(1)), small_step);
  static_assert(one.forward == 3 * (linear + attention) + head);
  // Through layer 2, and through layer 1 down to the norm that is trained there.
  static_assert(one.activation_gradients == 2 * linear + 5 * attention + head);
  static_assert(one.weight_gradients == linear);
  CHECK(one.total() == one.forward + one.activation_gradients + one.weight_gradients);

  step_flops const full = count_flops(small, plan_full(3), small_step);
  CHECK(full.forward == one.forward);
  CHECK(full.activation_gradients == 3 * linear + 15 * attention / 2 + head);
  CHECK(full.weight_gradients == 3 * linear + head);
}

TEST_CASE("step_flops: a stop layer ends where its trained tensors end") {
  auto const inside = [](role_set trained) {
    auto const plan = plan_backward(3, single_layer(2), {.trained_roles = trained});
    return count_flops(small, plan, small_step).activation_gradients - head;
  };
  using role = parameter_role;
  index_t const inner = query + 5 * attention / 2;
  CHECK(inside(roles(role::mlp_down)) == 0);
  CHECK(inside(roles(role::mlp_gate)) == mlp);
  CHECK(inside(roles(role::mlp_norm)) == 3 * mlp);
  CHECK(inside(roles(role::attention_output)) == 3 * mlp);
  CHECK(inside(roles(role::attention_key)) == 3 * mlp + inner);
  CHECK(inside(roles(role::attention_norm)) == 3 * mlp + inner + query + 2 * key);
}

TEST_CASE("step_flops: weight gradients follow the roles, also outside the layers") {
  auto const of = [](backward_plan const& plan) {
    return count_flops(small, plan, small_step).weight_gradients;
  };
  using role = parameter_role;
  auto const layers = layer_range(0, 1);
  CHECK(of(plan_backward(3, layers, {.trained_roles = roles(role::attention_value)})) == 2 * key);
  CHECK(of(plan_backward(3, layers, {.trained_roles = mlp_roles})) == 2 * 3 * mlp);
  CHECK(of(plan_backward(3, layers, {.trained_roles = norm_roles})) == 0);
  CHECK(of(plan_backward(3, no_layers(), {.head = true})) == head);
  CHECK(of(plan_backward(3, no_layers(), {.embeddings = true})) == 0);
  transformer_shape tied = small;
  tied.tied_head = true;
  CHECK(count_flops(tied, plan_backward(3, no_layers(), {.embeddings = true}), small_step)
            .weight_gradients == head);
}

TEST_CASE("step_flops: a head alone needs no activation gradient, a final norm the head's") {
  auto const of = [](plan_options const& options) {
    return count_flops(small, plan_backward(3, no_layers(), options), small_step)
        .activation_gradients;
  };
  CHECK(of({.head = true}) == 0);
  CHECK(of({.final_norm = true}) == head);
}

TEST_CASE("step_flops: after the first pass a kept prefix is not run again") {
  step_shape step = small_step;
  step.mini_batches = 4;
  step.epochs = 3;
  step.reference = true;
  step.old_policy = true;
  auto const plan = plan_backward(3, single_layer(2));
  step_flops const again = count_flops(small, plan, step);
  step.prefix_reuse = true;
  step_flops const kept = count_flops(small, plan, step);
  CHECK(again.forward == 4 * 5 * (3 * (linear + attention) + head));
  CHECK(again.forward - kept.forward == 4 * 4 * 2 * (linear + attention));
  CHECK(again.activation_gradients == kept.activation_gradients);
  CHECK(kept.weight_gradients == 4 * 3 * linear);
  // Nothing below the embeddings is frozen.
  auto const embeddings = plan_backward(3, single_layer(2), {.embeddings = true});
  step_flops const all = count_flops(small, embeddings, step);
  CHECK(all.forward == again.forward);
}

TEST_CASE("step_flops: packed sequences cost what each of them costs") {
  std::vector<index_t> const offsets{0, 3, 10, 12};
  packed_sequences const packed = sequences_at(offsets);
  CHECK(packed.tokens == 12);
  CHECK(packed.token_pairs == 9 + 49 + 4);
  packed_sequences const equal = equal_sequences(3, 4);
  CHECK(equal.tokens == 12);
  CHECK(equal.token_pairs == 48);
}

TEST_CASE("step_flops: counts that make no sense or do not fit are refused by name") {
  auto const plan = plan_backward(3, single_layer(2));
  auto const count = [&](auto const& change) {
    step_shape step = small_step;
    change(step);
    return count_flops(small, plan, step);
  };
  CHECK_THROWS_WITH_AS(count([](step_shape& s) { s.epochs = 0; }),
                       "count_flops: epochs is 0, expected at least 1", config_error);
  CHECK_THROWS_WITH_AS(count([](step_shape& s) { s.logit_rows = 11; }),
                       "count_flops: logit_rows is 11, expected at most tokens = 10", config_error);
  CHECK_THROWS_WITH_AS(count([](step_shape& s) { s.sequences.token_pairs = 9; }),
                       "count_flops: token_pairs is 9, expected at least 10", config_error);
  CHECK_THROWS_WITH_AS(count([](step_shape& s) { s.rollout_rows = -1; }),
                       "count_flops: rollout_rows is -1, expected at least 0", config_error);
  CHECK_THROWS_WITH_AS(count_flops(small, plan_full(4), small_step),
                       "count_flops: the plan is for 4 layers, the model has 3", config_error);
  CHECK_THROWS_AS(count([](step_shape& s) { s.mini_batches = index_t{1} << 50; }), config_error);
  CHECK_THROWS_AS(count([](step_shape& s) {
                    s.sequences = {index_t{1} << 40, index_t{1} << 60};
                  }),
                  config_error);
}
