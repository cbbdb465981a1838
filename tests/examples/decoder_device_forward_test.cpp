// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The decoder on a device whose memory the host cannot touch: the numbers of the decoder on a host.
#include <doctest/doctest.h>

#include "lamina/layers/selector.hpp"
#include "tests/examples/decoder_device_cases.hpp"

using namespace decoder;
using namespace decoder::testing;
using lamina::backward_plan;
using lamina::plan_backward;

namespace {

static_assert(lamina::check_prefix_model<transformer<simulated_device<float>>>());
static_assert(lamina::whole_model<transformer<simulated_device<float>, lamina::bf16>>);

}  // namespace

TEST_CASE_TEMPLATE("decoder on a device: logits are those of the host", T, float, double) {
  for (named_config const& tested : small_configs()) {
    CAPTURE(tested.name);
    model_pair<T> models(tested.shape);
    auto const batch = random_batch(tested.shape, {5, 2, 40, 1, 9}, 3);
    auto const expected = copy_of(models.host.forward(batch));
    auto const placed = models.place(batch);
    auto const logits = models.device.forward(placed);
    CHECK(models.backend.stream().pending() > 0);
    CHECK(distance(fetch(models.backend, logits), expected) < rounding<T>);
  }
}

TEST_CASE("decoder on a device: prefix and suffix have the bits of forward") {
  config const shape = small_configs()[4].shape;
  model_pair<float> models(shape);
  auto& device = models.device;
  auto const batch = models.place(random_batch(shape, {5, 2, 9}, 3));
  auto const expected = fetch(models.backend, device.forward(batch));
  for (index_t layer = 0; layer <= shape.layer_count; ++layer) {
    auto const plan = layer == shape.layer_count ? plan_backward(3, {}, {.final_norm = true})
                                                 : plan_backward(3, lamina::single_layer(layer));
    auto const stream = device.forward_prefix(batch, layer);
    CHECK(same_bits(fetch(models.backend, device.forward_suffix(batch, layer, stream, plan)),
                    expected));
  }
}

TEST_CASE_TEMPLATE("decoder on a device: weights come back as they were", Weight, float,
                   lamina::bf16) {
  model_pair<float, Weight> models(small_configs()[3].shape);
  transformer<lamina::eigen_backend<float>, Weight> back({}, models.host.shape());
  back.copy_weights(models.device);
  for (index_t layer = lamina::outside_layers; layer < back.layer_count(); ++layer) {
    CHECK(same_bits(back.block(layer).weights(), models.host.block(layer).weights()));
  }
  // A device draws the weights of a host.
  models.device.initialize(5);
  models.host.initialize(5);
  back.copy_weights(models.device);
  CHECK(same_bits(back.block(1).weights(), models.host.block(1).weights()));
}

TEST_CASE("decoder on a device: a batch made for another shape is refused") {
  model_pair<float> models(small_configs()[0].shape);
  config const other = small_configs()[1].shape;
  device_batch<simulated_device<float>> const batch(models.backend, random_batch(other, {4}, 1),
                                                    other);
  models.backend.synchronize();  // the batch goes before the stream does
  CHECK_THROWS_WITH_AS(models.device.forward(batch),
                       "decoder::forward: the batch is for a model of another shape",
                       lamina::config_error);
  CHECK_THROWS_WITH_AS(models.device.forward({}), "decoder::forward: the batch is empty",
                       lamina::config_error);
  CHECK_THROWS_AS(models.place({{0, 1}, {0, 3}, {0}}), lamina::shape_error);
}
