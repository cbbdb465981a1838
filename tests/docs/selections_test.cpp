// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Code of docs/selections.md.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "lamina/backend/eigen.hpp"
#include "lamina/layers/schedule.hpp"
#include "lamina/layers/tensor_selection_text.hpp"
#include "lamina/model/transformer.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/optim/audit.hpp"
#include "tests/support/minimal_model.hpp"

using namespace lamina;

namespace {

using model_type = testing::minimal_model<float>;

// Gradients of sum_{t, v} (v + 1) * logits(t, v) / 10, for what the plan trains.
void compute_gradients(model_type& model, backward_plan const& plan) {
  auto const logits = model.forward({0, 2, 1, 2}, plan);
  for (index_t t = 0; t < logits.rows; ++t) {
    for (index_t v = 0; v < logits.cols; ++v) logits(t, v) = 0.1f * static_cast<float>(v + 1);
  }
  model.backward(matrix_view<float const>(logits), plan);
}

std::vector<std::vector<float>> rotate_with_rebind(index_t steps, moments kept) {
  model_type model(4, 3);
  eigen_backend<float> const backend;
  // [schedule]
  lamina::rotating_layers const schedule{.layers = lamina::all_layers(4), .count = 1, .every = 3};
  auto plan = lamina::plan_backward(4, schedule.layers_at(0));
  lamina::adamw optimizer(backend, lamina::trained_parameters(model, plan),
                          {.learning_rate = 0.01});
  for (lamina::index_t step = 0; step < steps; ++step) {
    if (step > 0 && lamina::changes_at(schedule, step)) {
      plan = lamina::plan_backward(4, schedule.layers_at(step));
      optimizer.rebind(lamina::trained_parameters(model, plan), kept);
    }
    compute_gradients(model, plan);
    optimizer.step();
  }
  // [/schedule]
  return model.weights();
}

// The same by one optimizer a layer, none of which is ever rebound: all last for the whole run
// (keep), or each is made anew when its turn comes (drop).
std::vector<std::vector<float>> rotate_with_many(index_t steps, moments kept) {
  model_type model(4, 3);
  auto const make = [&](index_t layer) {
    return adamw(eigen_backend<float>{}, model.parameters(layer), {.learning_rate = 0.01});
  };
  std::vector<decltype(make(0))> optimizers;
  for (index_t layer = 0; layer < 4; ++layer) optimizers.push_back(make(layer));
  for (index_t step = 0; step < steps; ++step) {
    index_t const layer = step / 3 % 4;
    auto& optimizer = optimizers[static_cast<std::size_t>(layer)];
    if (step % 3 == 0 && kept == moments::drop) optimizer = make(layer);
    compute_gradients(model, plan_backward(4, single_layer(layer)));
    optimizer.step();
  }
  return model.weights();
}

}  // namespace

TEST_CASE("a selection that rotates keeps or drops its moments as chosen") {
  for (index_t const steps : {12, 13, 25, 36}) {
    CAPTURE(steps);
    CHECK(rotate_with_rebind(steps, moments::keep) == rotate_with_many(steps, moments::keep));
    CHECK(rotate_with_rebind(steps, moments::drop) == rotate_with_many(steps, moments::drop));
  }
  CHECK(rotate_with_rebind(12, moments::keep) == rotate_with_rebind(12, moments::drop));
  CHECK_FALSE(rotate_with_rebind(13, moments::keep) == rotate_with_rebind(13, moments::drop));
}

TEST_CASE("names of tensors become places") {
  // [names]
  using lamina::parse_parameter_name;
  auto const q = parse_parameter_name("module.model.layers.10.self_attn.q_proj.weight");
  CHECK(q.layer == 10);
  CHECK(q.role == lamina::parameter_role::attention_query);

  auto const w2 = parse_parameter_name("model.layers.4.block_sparse_moe.experts.12.w2.weight");
  CHECK(w2.layer == 4);
  CHECK(w2.expert == 12);

  auto const vision = parse_parameter_name("model.visual.blocks.5.attn.qkv.weight");
  CHECK(vision.group == lamina::parameter_group::vision);
  CHECK(vision.layer == lamina::outside_layers);

  // Layers of the second of two pipeline stages; a block behind the last layer.
  lamina::name_options const stage{.layer_count = 32, .first_layer = 16};
  CHECK(parse_parameter_name("decoder.layers.3.mlp.linear_fc2.weight", stage).layer == 19);
  CHECK(parse_parameter_name("decoder.layers.16.mlp.linear_fc2.weight", stage).group ==
        lamina::parameter_group::mtp);
  // [/names]
}

TEST_CASE("a selection of a model's tensors, from its text to what is trained") {
  model_type model(4, 3);
  // [train]
  auto const selection =
      lamina::parse_selection("/layers\\.[12]\\./,embeddings", 4, lamina::model_tensors(model));
  auto const plan = lamina::plan_backward(4, selection.covering());
  auto const parameters = lamina::trained_parameters(model, selection);
  // [/train]
  REQUIRE(parameters.size() == 3);
  CHECK(parameters[0].name == "embedding");
  CHECK(parameters[2].name == "layers.2.weight");
  CHECK(plan.layers() == layer_range(1, 2));
  CHECK(to_text(selection) == "embeddings,/layers\\.[12]\\./");
  auto const before = weight_snapshot(all_parameters(model));
  adamw optimizer(eigen_backend<float>{}, parameters, {.learning_rate = 0.01});
  compute_gradients(model, plan);
  optimizer.step();
  CHECK(audit(before, all_parameters(model), selection).passed());
}

TEST_CASE("a profile is looked up by the caller") {
  std::vector<double> const measured = {0.1, 0.7, 0.2, 0.9};
  // [profile]
  auto const profiles = [&](std::string_view name) {
    return name == "math.json" ? measured : std::vector<double>();
  };
  auto const best = lamina::parse_selection("top:2@math.json:mlp", 4, {}, profiles);
  CHECK(lamina::to_text(best) == "1:mlp,3:mlp");
  // [/profile]
}
