// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Weights of bfloat16 on a device: widened for products that need it, or multiplied as they are.
#include <doctest/doctest.h>

#include "examples/decoder/memory.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/optim/adamw.hpp"
#include "tests/examples/decoder_device_cases.hpp"

using namespace decoder;
using namespace decoder::testing;
using lamina::bf16;
using lamina::plan_backward;

namespace {

using narrow_device = with_narrow_products<simulated_device<float>>;
static_assert(narrow_products<narrow_device, bf16>);
static_assert(!narrow_products<simulated_device<float>, bf16>);

// Distances of logits and gradients from those of the host with the same weights.
template <class Device>
std::pair<double, double> distances(config const& shape) {
  model_pair<float, bf16, Device> models(shape);
  auto const plan = plan_backward(3, lamina::all_layers(3), {.embeddings = true});
  auto const batch = random_batch(shape, {5, 2, 9, 4}, 3);
  auto const d_logits =
      random_coefficients<float>(static_cast<index_t>(batch.logit_rows.size()) * shape.vocab, 5);
  uploaded placed_d_logits(models.backend, d_logits);
  auto const expected = copy_of(models.host.forward(batch, plan));
  models.host.backward(as_matrix(d_logits, shape.vocab), plan);
  auto const placed = models.place(batch);
  auto const logits = fetch(models.backend, models.device.forward(placed, plan));
  models.device.backward(placed_d_logits.matrix(shape.vocab), plan);
  return {distance(logits, expected), models.gradient_distance()};
}

}  // namespace

TEST_CASE("decoder on a device: widened weights give the numbers of the host") {
  for (named_config const& tested : small_configs()) {
    CAPTURE(tested.name);
    auto const [logits, gradients] = distances<simulated_device<float>>(tested.shape);
    CHECK(logits < 1e-5);
    CHECK(gradients < 0.005);  // one rounding to bfloat16 may fall the other way
  }
}

TEST_CASE("decoder on a device: narrow products differ by the rounding of activations") {
  for (named_config const& tested : small_configs()) {
    CAPTURE(tested.name);
    auto const [logits, gradients] = distances<narrow_device>(tested.shape);
    CHECK(logits > 1e-5);
    CHECK(logits < 0.03);
    CHECK(gradients < 0.25);  // of key biases, whose terms nearly cancel
  }
}

TEST_CASE("decoder on a device: narrow training of layers allocates what its memory plan says") {
  config const shape{.layer_count = 4,
                     .width = 48,
                     .head_count = 4,
                     .kv_head_count = 2,
                     .head_width = 16,
                     .ffn_width = 96,
                     .vocab = 20000,
                     .qk_norm = true};
  auto const batch = random_batch(shape, {40, 50, 30}, 3);
  for (auto const& plan :
       {plan_backward(4, lamina::all_layers(4)), plan_backward(4, lamina::single_layer(2)),
        plan_backward(4, lamina::layer_range(1, 2))}) {
    narrow_device const backend;
    device_batch<narrow_device> const placed(backend, batch, shape);
    auto const of_batch = static_cast<double>(backend.work->allocated());
    transformer<narrow_device, bf16> model(backend, shape);
    model.prepare(plan);
    lamina::adamw optimizer(backend, lamina::trained_parameters(model, plan));
    model.backward(model.forward(placed, plan), plan);
    optimizer.step();
    backend.synchronize();
    auto const planned =
        lamina::plan_memory(transformer_shape(shape), plan,
                            {.sequences = lamina::sequences_at(batch.offsets),
                             .logit_rows = static_cast<index_t>(batch.logit_rows.size())},
                            device_activation_sizes(shape, 50), {.weight = 2, .gradient = 2});
    // In whole pages, so somewhat more.
    auto const allocated = static_cast<double>(backend.work->allocated()) - of_batch;
    CHECK(allocated == doctest::Approx(static_cast<double>(planned.peak())).epsilon(0.03));
  }
}
