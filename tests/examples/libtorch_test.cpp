// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// lamina beside torch's own autograd, losses and optimizer. Torch brings macros such as CHECK.
#define DOCTEST_CONFIG_NO_SHORT_MACRO_NAMES
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "examples/libtorch/layered_module.hpp"
#include "examples/libtorch/sorting.hpp"
#include "lamina/backend/eigen.hpp"
#include "lamina/layers/tensor_selection_text.hpp"
#include "lamina/model/transformer.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/policy/log_prob_loss.hpp"
#include "lamina/policy/logits_loss.hpp"
#include "lamina/policy/presets.hpp"
#include "lamina/policy/prompt_groups.hpp"

namespace {

using lamina::index_t;
using libtorch::torch_matrix_view;
using libtorch::torch_vector_view;
using torch::Tensor;

static_assert(lamina::whole_model<libtorch::layered_module<float>>);

constexpr index_t sequences = 24, group_size = 8, length = libtorch::answer_length;

libtorch::transformer small_model() {
  torch::set_num_threads(1);
  torch::manual_seed(3);
  return libtorch::transformer(
      libtorch::transformer_options{.width = 16, .head_count = 2, .layer_count = 3});
}

lamina::tensor_selection select(libtorch::layered_module<float>& module, std::string const& text) {
  auto const selection =
      lamina::parse_selection(text, module.layer_count(), lamina::model_tensors(module));
  module.select(selection);
  return selection;
}

// Rollouts whose log-probs have moved since they were sampled, with answers of 1 to 4 tokens.
struct moved_batch {
  Tensor tokens = torch::randint(10, {sequences, 2 * length}, torch::kLong);
  Tensor old_log_probs, reference_log_probs;
  Tensor mask = torch::arange(length) < torch::randint(1, length + 1, {sequences, 1});
  Tensor rewards = torch::randint(3, {sequences}).to(torch::kFloat);
  Tensor token_ids = libtorch::answers_of(tokens).to(torch::kInt).contiguous();
  std::vector<index_t> offsets;

  explicit moved_batch(libtorch::transformer& model) {
    torch::NoGradGuard const no_grad;
    auto const now = libtorch::answer_log_probs(model, tokens);
    old_log_probs = now + 0.3 * torch::randn_like(now);
    reference_log_probs = now + 0.3 * torch::randn_like(now);
    for (index_t i = 0; i <= sequences; ++i) offsets.push_back(i * length);
  }
  lamina::policy_batch<float> view(std::vector<float> const& advantages) const {
    return {.offsets = offsets,
            .token_ids = torch_vector_view<std::int32_t const>(token_ids),
            .old_log_probs = torch_vector_view<float const>(old_log_probs),
            .reference_log_probs = torch_vector_view<float const>(reference_log_probs),
            .mask = torch_vector_view<std::uint8_t const>(mask_bytes),
            .advantages = advantages,
            .denominators = {.sequences = sequences, .tokens = mask.sum().item<index_t>()}};
  }
  Tensor mask_bytes = mask.to(torch::kByte).contiguous();
};

std::vector<Tensor> gradients_of(libtorch::transformer& model) {
  std::vector<Tensor> gradients;
  for (auto const& parameter : model->parameters()) gradients.push_back(parameter.grad().clone());
  return gradients;
}

// Greatest difference, as a part of the greatest gradient of the same tensor.
double relative_difference(std::vector<Tensor> const& a, std::vector<Tensor> const& b) {
  double greatest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    auto const scale = b[i].abs().max().item<double>();
    DOCTEST_CHECK(scale > 0);
    greatest = std::max(greatest, (a[i] - b[i]).abs().max().item<double>() / scale);
  }
  return greatest;
}

// ---- The losses of the papers as one writes them in torch, for autograd -----------------------

Tensor group_centred(Tensor const& rewards) {
  auto const grouped = rewards.view({-1, group_size});
  return (grouped - grouped.mean(1, /*keepdim=*/true)).flatten();
}
Tensor group_standardised(Tensor const& rewards) {
  auto const deviation = rewards.view({-1, group_size}).std(1, /*unbiased=*/true);
  return group_centred(rewards) / (deviation + 1e-6).repeat_interleave(group_size);
}
Tensor clipped(Tensor const& ratio, Tensor const& advantages, double low, double high) {
  return -torch::min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages);
}
Tensor k3(Tensor const& log_probs, Tensor const& reference) {
  auto const difference = reference - log_probs;
  return difference.exp() - difference - 1;
}
Tensor mean_of_means(Tensor const& values, Tensor const& mask) {
  return ((values * mask).sum(1) / mask.sum(1)).mean();
}

Tensor torch_grpo(Tensor const& log_probs, moved_batch const& batch) {
  auto const ratio = (log_probs - batch.old_log_probs).exp();
  auto const advantages = group_standardised(batch.rewards).unsqueeze(1);
  return mean_of_means(
      clipped(ratio, advantages, 0.2, 0.28) + 0.04 * k3(log_probs, batch.reference_log_probs),
      batch.mask);
}
Tensor torch_dr_grpo(Tensor const& log_probs, moved_batch const& batch) {
  auto const ratio = (log_probs - batch.old_log_probs).exp();
  auto const losses = clipped(ratio, group_centred(batch.rewards).unsqueeze(1), 0.2, 0.2);
  return (losses * batch.mask).sum() / static_cast<double>(sequences * length);
}
Tensor torch_gspo(Tensor const& log_probs, moved_batch const& batch) {
  auto const log_ratio = (log_probs - batch.old_log_probs) * batch.mask;
  auto const ratio = (log_ratio.sum(1) / batch.mask.sum(1)).exp();
  return clipped(ratio, group_standardised(batch.rewards), 0.1, 0.1).mean();
}

// Gradients of every weight by lamina's coefficients, from log-probs and from logits, against those
// of the torch loss.
template <class Estimator>
void check_gradients(Estimator const& estimator,
                     Tensor (*torch_loss)(Tensor const&, moved_batch const&)) {
  auto model = small_model();
  moved_batch const rollouts(model);
  libtorch::layered_module parameters(*model);
  select(parameters, "*,embeddings,final_norm,head");

  auto const loss = torch_loss(libtorch::answer_log_probs(model, rollouts.tokens), rollouts);
  loss.backward();
  auto const expected = gradients_of(model);

  auto const advantages =
      estimator.advantages(torch_vector_view<float const>(rollouts.rewards),
                           lamina::prompt_groups::uniform(sequences, group_size));
  auto const batch = rollouts.view(advantages.values);
  auto const log_probs = libtorch::answer_log_probs(model, rollouts.tokens);
  auto const d_log_probs = torch::empty_like(log_probs);
  auto const result = lamina::policy_loss(estimator, torch_vector_view<float const>(log_probs),
                                          batch, torch_vector_view<float>(d_log_probs));
  parameters.zero_gradients();
  log_probs.backward(d_log_probs);

  DOCTEST_CHECK(result.loss == doctest::Approx(loss.template item<double>()).epsilon(1e-5));
  DOCTEST_CHECK(result.metrics.clip_low_fraction > 0);
  DOCTEST_CHECK(result.metrics.clip_high_fraction > 0);
  DOCTEST_CHECK(relative_difference(gradients_of(model), expected) < 1e-5);

  auto const chosen_log_probs = torch::empty({sequences, length});
  // [logits]
  auto const logits = libtorch::answer_logits(model, rollouts.tokens);
  auto const d_logits = logits.detach();  // the same memory, which lamina turns into the gradient
  lamina::policy_loss(
      lamina::eigen_backend<float>{}, estimator, torch_matrix_view<float>(d_logits), batch,
      {torch_vector_view<float>(chosen_log_probs), torch_vector_view<float>(d_log_probs)});
  parameters.zero_gradients();
  logits.backward(d_logits);
  // [/logits]
  DOCTEST_CHECK(relative_difference(gradients_of(model), expected) < 1e-5);
}

}  // namespace

DOCTEST_TEST_CASE("libtorch: grpo's coefficients give autograd's gradients") {
  check_gradients(
      lamina::grpo{.surrogate = {.clip_low = 0.2, .clip_high = 0.28}, .kl = {.coefficient = 0.04}},
      torch_grpo);
}

DOCTEST_TEST_CASE("libtorch: dr_grpo's coefficients give autograd's gradients") {
  check_gradients(lamina::dr_grpo{.aggregation = {.length = length}}, torch_dr_grpo);
}

DOCTEST_TEST_CASE("libtorch: gspo's coefficients give autograd's gradients") {
  check_gradients(lamina::gspo{.surrogate = {.clip_low = 0.1, .clip_high = 0.1}}, torch_gspo);
}

DOCTEST_TEST_CASE("libtorch: names of parameters say layer and role") {
  auto model = small_model();
  libtorch::layered_module parameters(*model);
  DOCTEST_CHECK(parameters.layer_count() == 3);
  DOCTEST_CHECK(parameters.parameters(1).size() == 12);
  DOCTEST_CHECK(parameters.outer_parameters().size() == 5);
  index_t elements = 0;
  for (auto const& parameter : lamina::all_parameters(parameters)) {
    DOCTEST_INFO(std::string(parameter.name));
    DOCTEST_CHECK(parameter.role != lamina::parameter_role::other);
    elements += parameter.weight.size;
    if (parameter.name == "layers.2.attention.out.weight") {
      DOCTEST_CHECK(parameter.layer == 2);
      DOCTEST_CHECK(parameter.role == lamina::parameter_role::attention_output);
      DOCTEST_CHECK(parameter.decays);
    }
    if (parameter.name == "layers.0.mlp_norm.bias") {
      DOCTEST_CHECK(parameter.role == lamina::parameter_role::mlp_norm);
      DOCTEST_CHECK(!parameter.decays);
    }
  }
  index_t expected = 0;
  for (auto const& parameter : model->parameters()) expected += parameter.numel();
  DOCTEST_CHECK(elements == expected);

  model->embedding->register_parameter("tied", model->head->weight);
  libtorch::layered_module tied(*model);
  DOCTEST_CHECK(tied.outer_parameters().size() == 5);

  torch::nn::Linear const no_layers(2, 2);
  DOCTEST_CHECK_THROWS_WITH_AS(
      libtorch::layered_module<float>{*no_layers},
      "layered_module: none of 2 names tells a decoder layer, expected such as layers.0.norm",
      lamina::config_error);
}

DOCTEST_TEST_CASE("libtorch: requires_grad follows the selection, and autograd stops below it") {
  auto model = small_model();
  auto const tokens = torch::randint(10, {2, 2 * length}, torch::kLong);
  libtorch::answer_log_probs(model, tokens).sum().backward();  // gradients of everything
  libtorch::layered_module parameters(*model);
  select(parameters, "1:attention,2:norms");
  libtorch::answer_log_probs(model, tokens).sum().backward();
  int trained = 0;
  for (auto const& parameter : model->named_parameters()) {
    DOCTEST_INFO(parameter.key());
    bool const selected = parameter.key().find("layers.1.attention") == 0 ||
                          (parameter.key().find("layers.2.") == 0 &&
                           parameter.key().find("norm") != std::string::npos);
    DOCTEST_CHECK(parameter.value().requires_grad() == selected);
    DOCTEST_CHECK(parameter.value().grad().defined() == selected);
    if (selected) DOCTEST_CHECK(parameter.value().grad().abs().sum().item<double>() > 0);
    trained += selected ? 1 : 0;
  }
  DOCTEST_CHECK(trained == 10);
  auto const below =
      model->layers[0]->as<libtorch::decoder_layer>()->forward(model->embedding(tokens));
  DOCTEST_CHECK(!below.requires_grad());
  DOCTEST_CHECK(model->layers[1]->as<libtorch::decoder_layer>()->forward(below).requires_grad());
}

DOCTEST_TEST_CASE("libtorch: gradients stay where the optimizer looks for them") {
  auto model = small_model();
  auto const tokens = torch::randint(10, {2, 2 * length}, torch::kLong);
  libtorch::layered_module parameters(*model);
  auto const selection = select(parameters, "1");
  auto const views = lamina::trained_parameters(parameters, selection);
  model->zero_grad(/*set_to_none=*/true);
  for (int pass = 0; pass < 2; ++pass) {
    parameters.zero_gradients();
    libtorch::answer_log_probs(model, tokens).sum().backward();
    for (auto const& view : views) {
      auto const gradient = model->named_parameters()[std::string(view.name)].grad();
      DOCTEST_CHECK(gradient.data_ptr<float>() == view.gradient.data);
    }
  }
}

DOCTEST_TEST_CASE("libtorch: lamina's AdamW is torch's, and frozen weights keep their bits") {
  auto model = small_model();
  auto const tokens = torch::randint(10, {sequences, 2 * length}, torch::kLong);
  libtorch::layered_module parameters(*model);
  auto const selection = select(parameters, "1");
  auto const views = lamina::trained_parameters(parameters, selection);
  std::vector<Tensor> twins;  // torch's optimizer moves copies, by the same gradients
  std::vector<Tensor> decayed, not_decayed;
  for (auto const& view : views) {
    auto const weight = model->named_parameters()[std::string(view.name)];
    twins.push_back(weight.detach().clone().set_requires_grad(true));
    (view.decays ? decayed : not_decayed).push_back(twins.back());
  }
  std::vector<Tensor> before;
  for (auto const& parameter : model->parameters()) before.push_back(parameter.detach().clone());

  auto const group = [](std::vector<Tensor> const& weights, double decay) {
    auto const options = torch::optim::AdamWOptions(1e-2).weight_decay(decay);
    return torch::optim::OptimizerParamGroup(weights,
                                             std::make_unique<torch::optim::AdamWOptions>(options));
  };
  torch::optim::AdamW theirs({group(decayed, 0.1), group(not_decayed, 0)});
  lamina::adamw ours(lamina::eigen_backend<float>{}, views,
                     {.learning_rate = 1e-2, .weight_decay = 0.1});
  for (int step = 0; step < 10; ++step) {
    parameters.zero_gradients();
    libtorch::answer_log_probs(model, tokens).mean().neg().backward();
    for (std::size_t i = 0; i < views.size(); ++i) {
      twins[i].mutable_grad() =
          model->named_parameters()[std::string(views[i].name)].grad().clone();
    }
    ours.step();
    theirs.step();
    for (std::size_t i = 0; i < views.size(); ++i) {
      auto const weight = model->named_parameters()[std::string(views[i].name)];
      DOCTEST_CHECK((weight - twins[i]).abs().max().item<double>() < 1e-6);
    }
  }
  std::size_t p = 0;
  for (auto const& parameter : model->named_parameters()) {
    DOCTEST_INFO(parameter.key());
    auto const bytes = static_cast<std::size_t>(parameter.value().numel()) * sizeof(float);
    bool const alike =
        std::memcmp(parameter.value().data_ptr(), before[p++].data_ptr(), bytes) == 0;
    DOCTEST_CHECK(alike == (parameter.key().find("layers.1.") != 0));
  }
  DOCTEST_CHECK(ours.state().size() == 12);
}

DOCTEST_TEST_CASE("libtorch: views share torch's memory") {
  auto const t = torch::arange(12, torch::kFloat).view({3, 4});
  auto const whole = torch_matrix_view<float>(t);
  DOCTEST_CHECK(whole.rows == 3);
  DOCTEST_CHECK(whole.cols == 4);
  DOCTEST_CHECK(whole(2, 1) == 9);
  auto const part = torch_matrix_view<float>(t.slice(1, 1, 3));
  DOCTEST_CHECK(part.cols == 2);
  DOCTEST_CHECK(part.stride == 4);
  DOCTEST_CHECK(part(2, 1) == 10);
  part(2, 1) = -1;
  DOCTEST_CHECK(t[2][2].item<float>() == -1);
  auto const batch = torch_matrix_view<float const>(torch::zeros({2, 3, 5}));
  DOCTEST_CHECK(batch.rows == 6);
  DOCTEST_CHECK(batch.cols == 5);
  auto const without_first = torch_matrix_view<float>(torch::zeros({2, 3, 5}).slice(2, 1));
  DOCTEST_CHECK(without_first.rows == 6);
  DOCTEST_CHECK(without_first.stride == 5);
  auto const halves = torch::tensor({1.5, -2.0}).to(torch::kBFloat16);
  DOCTEST_CHECK(float(torch_vector_view<lamina::bf16>(halves)[1]) == -2.0f);
  DOCTEST_CHECK(float(torch_vector_view<lamina::f16>(halves.to(torch::kHalf))[0]) == 1.5f);
}

DOCTEST_TEST_CASE("libtorch: what has no view is refused") {
  auto const vector_of = [](Tensor const& t) { return torch_vector_view<float>(t); };
  auto const matrix_of = [](Tensor const& t) { return torch_matrix_view<float>(t); };
  DOCTEST_CHECK_THROWS_WITH_AS(vector_of({}),
                               "host_tensor: the tensor is undefined, expected one with memory",
                               lamina::config_error);
  DOCTEST_CHECK_THROWS_WITH_AS(
      vector_of(torch::zeros({2}, torch::kMeta)),
      "host_tensor: the tensor is Strided on meta, expected Strided on cpu", lamina::config_error);
  DOCTEST_CHECK_THROWS_WITH_AS(matrix_of(torch::eye(2).to_sparse()),
                               "host_tensor: the tensor is Sparse on cpu, expected Strided on cpu",
                               lamina::config_error);
  DOCTEST_CHECK_THROWS_WITH_AS(vector_of(torch::zeros({2}, torch::kDouble)),
                               "host_tensor: the tensor holds Double, expected Float",
                               lamina::config_error);
  DOCTEST_CHECK_THROWS_WITH_AS(vector_of(torch::zeros({3, 4}).t()),
                               "make_vector_view: tensor has shape [4, 3] and strides [1, 4], "
                               "expected elements without gaps, the last axis innermost",
                               lamina::shape_error);
  DOCTEST_CHECK_THROWS_AS(matrix_of(torch::zeros({3, 4}).t()), lamina::shape_error);
  DOCTEST_CHECK_THROWS_AS(matrix_of(torch::zeros({1, 4}).expand({3, 4})), lamina::shape_error);
  DOCTEST_CHECK_THROWS_AS(matrix_of(torch::zeros({2, 3, 4}).slice(1, 0, 2)), lamina::shape_error);
  DOCTEST_CHECK_THROWS_AS(matrix_of(torch::zeros({4})), lamina::shape_error);
}
