// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the memory plan predicts is what the decoder allocates, to the byte.
#include <doctest/doctest.h>

#include <memory>

#include "examples/decoder/memory.hpp"
#include "examples/decoder/sampler.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/optim/adamw.hpp"
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/backends.hpp"

using namespace decoder;
using namespace decoder::testing;

namespace {

// Counts the elements of the matrices that live.
struct counting_backend : lamina::testing::minimal_backend<float> {
  using base = lamina::testing::minimal_backend<float>;
  struct matrix_type : base::matrix_type {
    std::shared_ptr<index_t> counted;  // taken from the count when the matrix goes
  };
  index_t* live = nullptr;

  matrix_type make_matrix(index_t rows, index_t cols) const {
    *live += rows * cols;
    auto const forget = [count = live](index_t* elements) {
      *count -= *elements;
      delete elements;
    };
    return {base::make_matrix(rows, cols), {new index_t(rows * cols), forget}};
  }
};

constexpr std::initializer_list<index_t> lengths{9, 5, 13};

index_t planned_elements(config const& shape, lamina::backward_plan const& plan,
                         token_batch const& batch) {
  auto const m = lamina::plan_memory(transformer_shape(shape), plan,
                                     {.sequences = lamina::sequences_at(batch.offsets),
                                      .logit_rows = static_cast<index_t>(batch.logit_rows.size())},
                                     activation_sizes(shape, 13));
  return m.peak() / 4;
}

// The optimizer pads every tensor to whole cache lines.
index_t padding(std::vector<lamina::parameter_view<float>> const& parameters) {
  index_t total = 0;
  for (auto const& p : parameters) total += 2 * ((p.weight.size + 15) / 16 * 16 - p.weight.size);
  return total;
}

std::vector<lamina::backward_plan> plans() {
  using lamina::parameter_role;
  return {lamina::plan_full(3),
          lamina::plan_backward(3, lamina::all_layers(3)),
          lamina::plan_backward(3, lamina::single_layer(0)),
          lamina::plan_backward(3, lamina::single_layer(1)),
          lamina::plan_backward(3, lamina::single_layer(2)),
          lamina::plan_backward(3, lamina::single_layer(1),
                                {.trained_roles = lamina::roles(parameter_role::mlp_down)}),
          lamina::plan_backward(3, lamina::layer_range(1, 2),
                                {.trained_roles = lamina::attention_roles})};
}

}  // namespace

TEST_CASE("decoder: a training step allocates what its memory plan says") {
  for (named_config const& tested : small_configs()) {
    config const& shape = tested.shape;
    CAPTURE(tested.name);
    auto const batch = random_batch(shape, lengths, 3);
    for (auto const& plan : plans()) {
      index_t live = 0;
      transformer<counting_backend> model({{}, &live}, shape);
      model.initialize(1);
      model.prepare(plan);
      auto const parameters = lamina::trained_parameters(model, plan);
      lamina::adamw optimizer(model.backend(), parameters);
      model.backward(model.forward(batch, plan), plan);
      optimizer.step();
      CHECK(live == planned_elements(shape, plan, batch) + padding(parameters));
    }
  }
}

TEST_CASE("decoder: the activations kept for a layer are those of the memory plan") {
  config const shape = small_configs()[4].shape;
  auto const batch = random_batch(shape, lengths, 3);
  for (auto const& plan : plans()) {
    transformer<lamina::testing::minimal_backend<float>> model({}, shape);
    model.forward(batch, plan);
    index_t kept = 0;
    for (index_t layer = 0; layer < shape.layer_count; ++layer)
      kept += model.kept_activations(layer);
    auto const m =
        lamina::plan_memory(transformer_shape(shape), plan,
                            {.sequences = lamina::sequences_at(batch.offsets), .logit_rows = 1},
                            activation_sizes(shape));
    CHECK(4 * kept == m.saved_activations);
  }
}

TEST_CASE("decoder: the memory plan counts the parameters the decoder has") {
  for (named_config const& tested : small_configs()) {
    config const& shape = tested.shape;
    CAPTURE(tested.name);
    transformer<lamina::testing::minimal_backend<float>> model({}, shape);
    index_t count = 0;
    for (auto const& parameter : lamina::all_parameters(model)) count += parameter.weight.size;
    CHECK(transformer_shape(shape).parameter_count() == count);
    for (auto const& plan : plans()) {
      model.prepare(plan);
      index_t trained = 0;
      for (auto const& p : lamina::trained_parameters(model, plan)) trained += p.weight.size;
      CHECK(transformer_shape(shape).trained_parameter_count(plan) == trained);
    }
  }
}

TEST_CASE("decoder: sampling allocates what the memory plan says, but for its scratch") {
  config const shape{.layer_count = 4,
                     .width = 64,
                     .head_count = 4,
                     .kv_head_count = 2,
                     .head_width = 16,
                     .ffn_width = 96,
                     .vocab = 500};
  index_t live = 0;
  transformer<counting_backend> model({{}, &live}, shape);
  index_t const before = live;
  std::vector<std::vector<std::int32_t>> const prompts(16, std::vector<std::int32_t>(8, 1));
  sampler<counting_backend> rollouts(model.backend());
  rollouts.sample(model, prompts, 2, fixed_length{}, {.seed = 1}, 96);
  auto const plan = lamina::plan_memory(transformer_shape(shape),
                                        lamina::plan_backward(4, lamina::single_layer(2)),
                                        {.sequences = lamina::equal_sequences(1, 1),
                                         .logit_rows = 1,
                                         .rollout_rows = 32,
                                         .rollout_length = 96,
                                         .rollout_tokens = 16 * 8},
                                        activation_sizes(shape));
  index_t const scratch =
      attention_worker_count * cached_attention<float>::scratch_size(shape, 96) +
      block_product<counting_backend>::scratch_size(96) + 96 * 16;
  auto const allocated = static_cast<double>(4 * (live - before - scratch));
  CHECK(allocated == doctest::Approx(static_cast<double>(plan.rollout())).epsilon(0.02));
}
