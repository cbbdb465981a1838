// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Gradients of the decoder on a device, under every kind of plan: those of the decoder on a host.
#include <doctest/doctest.h>

#include "lamina/layers/selector.hpp"
#include "tests/examples/decoder_device_cases.hpp"

using namespace decoder;
using namespace decoder::testing;
using lamina::backward_plan;
using lamina::plan_backward;

namespace {

template <class T, class Pair>
double distance_after(Pair& models, backward_plan const& plan) {
  auto const batch = random_batch(models.host.shape(), {5, 2, 4}, 3);
  index_t const vocab = models.host.shape().vocab;
  auto d_logits = random_coefficients<T>(static_cast<index_t>(batch.logit_rows.size()) * vocab, 5);
  uploaded placed_d_logits(models.backend, d_logits);
  models.host.forward(batch, plan);
  models.host.backward(as_matrix(d_logits, vocab), plan);
  auto const placed = models.place(batch);
  models.device.forward(placed, plan);
  models.device.backward(placed_d_logits.matrix(vocab), plan);
  return models.gradient_distance();
}

// A plan for every place where the backward pass can stop.
std::vector<backward_plan> partial_plans() {
  using role = lamina::parameter_role;
  auto const one = lamina::single_layer(1);
  std::vector<backward_plan> plans{
      plan_backward(3, one), plan_backward(3, lamina::single_layer(2), {.final_norm = true}),
      plan_backward(3, {}, {.final_norm = true}), plan_backward(3, {}, {.embeddings = true})};
  for (role const r : {role::mlp_down, role::mlp_up, role::mlp_norm, role::attention_output,
                       role::attention_value, role::key_norm, role::attention_norm}) {
    plans.push_back(plan_backward(3, one, {.trained_roles = lamina::roles(r)}));
  }
  return plans;
}

}  // namespace

TEST_CASE_TEMPLATE("decoder on a device: gradients are those of the host", T, float, double) {
  for (named_config const& tested : small_configs()) {
    CAPTURE(tested.name);
    model_pair<T> models(tested.shape);
    auto const plan =
        plan_backward(3, lamina::all_layers(3),
                      {.embeddings = true, .final_norm = true, .head = !tested.shape.tied_head});
    CHECK(distance_after<T>(models, plan) < 10 * rounding<T>);
  }
}

TEST_CASE_TEMPLATE("decoder on a device: any number of lanes gives the same gradients", Device,
                   simulated_device<double, 7>, simulated_device<double, 33, 2>) {
  config shape = small_configs()[4].shape;
  shape.layer_count = 1;
  model_pair<double, double, Device> models(shape);
  auto const plan =
      plan_backward(1, lamina::all_layers(1), {.embeddings = true, .final_norm = true});
  CHECK(distance_after<double>(models, plan) < 1e-11);
}

TEST_CASE("decoder on a device: partial plans give the same gradients and touch no others") {
  config const shape = small_configs()[4].shape;
  for (auto const& plan : partial_plans()) {
    model_pair<double> models(shape);
    CHECK(distance_after<double>(models, plan) < 1e-11);
    for (index_t layer = 0; layer < 3; ++layer) {
      bool const kept = layer >= plan.stop_layer();
      CHECK((models.device.kept_activations(layer) > 0) == kept);
    }
  }
}

TEST_CASE("decoder on a device: tokens that bodies write are run, but train no embedding") {
  model_pair<double> models(small_configs()[0].shape);
  auto const batch = random_batch(models.host.shape(), {5, 2, 4}, 3);
  auto other = batch;
  for (auto& token : other.tokens) token = (token + 1) % 4;
  auto placed = models.place(other);
  vector_view<std::int32_t> const tokens = placed.overwrite_tokens();
  models.backend.copy(tokens.data, batch.tokens.data(), batch.tokens.size() * sizeof(std::int32_t));
  index_t const vocab = models.host.shape().vocab;
  auto d_logits =
      random_coefficients<double>(static_cast<index_t>(batch.logit_rows.size()) * vocab, 5);
  uploaded placed_d_logits(models.backend, d_logits);
  auto const plan = plan_backward(3, lamina::single_layer(1));
  models.host.forward(batch, plan);
  models.host.backward(as_matrix(d_logits, vocab), plan);
  models.device.forward(placed, plan);
  models.device.backward(placed_d_logits.matrix(vocab), plan);
  CHECK(models.gradient_distance() < 10 * rounding<double>);

  auto const embeddings = plan_backward(3, {}, {.embeddings = true});
  models.device.forward(placed, embeddings);
  CHECK_THROWS_AS(models.device.backward(placed_d_logits.matrix(vocab), embeddings),
                  lamina::config_error);
}

TEST_CASE("decoder on a device: a step from a cached prefix has the bits of a whole one") {
  config const shape = small_configs()[2].shape;
  auto const plan = plan_backward(3, lamina::single_layer(1));
  model_pair<float> whole(shape), parts(shape);
  auto const batch = random_batch(shape, {5, 2, 9}, 3);
  auto const d_logits =
      random_coefficients<float>(static_cast<index_t>(batch.logit_rows.size()) * shape.vocab, 5);
  auto const run = [&](auto& models, auto const& forward) {
    uploaded placed(models.backend, d_logits);
    auto const on_device = models.place(batch);
    forward(models.device, on_device);
    models.device.backward(placed.matrix(shape.vocab), plan);
    return fetch(models.backend, models.device.block(1).gradient(layer_tensor::query));
  };
  auto const expected =
      run(whole, [&](auto& model, auto const& placed) { model.forward(placed, plan); });
  CHECK(same_bits(run(parts,
                      [&](auto& model, auto const& placed) {
                        auto const stream = model.forward_prefix(placed, 1);
                        model.forward_suffix(placed, 1, stream, plan);
                      }),
                  expected));
}
