// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The decoder with weights in bf16: half the bytes, products and gradients of the same accuracy,
// masters for what is trained.
#include <doctest/doctest.h>

#include "examples/decoder/sampler.hpp"
#include "lamina/backend/eigen.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/model/reference.hpp"
#include "lamina/model/train_step.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/optim/audit.hpp"
#include "lamina/policy/presets.hpp"
#include "tests/examples/decoder_cases.hpp"

using namespace decoder;
using namespace decoder::testing;
using lamina::bf16;
using lamina::plan_backward;
using lamina::single_layer;

namespace {

using backend_type = lamina::eigen_backend<float>;
using narrow_model = transformer<backend_type, bf16>;
using wide_model = transformer<backend_type>;

static_assert(lamina::check_prefix_model<narrow_model>());
static_assert(std::is_same_v<lamina::model_scalar_t<narrow_model>, bf16>);
static_assert(std::is_same_v<lamina::model_logit_t<narrow_model>, float>);
static_assert(std::is_same_v<lamina::model_stream_t<narrow_model>, float>);

// The same weights twice: in bf16, and as floats that bf16 can hold.
struct pair {
  explicit pair(config const& shape) : narrow({}, shape), wide({}, shape) {
    randomize(wide, 11);
    narrow.copy_weights(wide);
    wide.copy_weights(narrow);
  }
  narrow_model narrow;
  wide_model wide;
};

template <class A, class B>
double largest_difference(A const& a, B const& b, double& scale) {
  double most = 0;
  for (index_t i = 0; i < a.size; ++i) {
    scale = std::max(scale, std::abs(static_cast<double>(b[i])));
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return most;
}

}  // namespace

TEST_CASE("decoder in bf16: logits are those of the same weights in float") {
  for (named_config const& tested : small_configs()) {
    config const& shape = tested.shape;
    CAPTURE(tested.name);
    pair models(shape);
    auto const batch = random_batch(shape, {5, 2, 9, 4}, 3);
    CHECK(same_bits(copy_of(models.narrow.forward(batch)), copy_of(models.wide.forward(batch))));
  }
}

TEST_CASE("decoder in bf16: gradients are those of float, rounded once") {
  for (named_config const& tested : small_configs()) {
    config const& shape = tested.shape;
    CAPTURE(tested.name);
    pair models(shape);
    auto const batch = random_batch(shape, {5, 2, 9, 4}, 3);
    auto const d_logits =
        random_coefficients<float>(static_cast<index_t>(batch.logit_rows.size()) * shape.vocab, 5);
    auto const plan = lamina::plan_full(3);
    models.narrow.forward(batch, plan);
    models.narrow.backward(as_matrix(d_logits, shape.vocab), plan);
    models.wide.forward(batch, plan);
    models.wide.backward(as_matrix(d_logits, shape.vocab), plan);
    auto const narrow = lamina::all_parameters(models.narrow);
    auto const wide = lamina::all_parameters(models.wide);
    for (std::size_t p = 0; p < wide.size(); ++p) {
      CAPTURE(wide[p].name);
      REQUIRE(narrow[p].gradient.size == wide[p].gradient.size);
      for (index_t i = 0; i < wide[p].gradient.size; ++i) {
        CHECK(narrow[p].gradient[i].bits == bf16(wide[p].gradient[i]).bits);
      }
    }
  }
}

TEST_CASE("decoder in bf16: matrices larger than a panel are worked panel by panel") {
  index_t const vocab = 2 * widening<backend_type>::panel_size / 64 + 5;
  config const shape{.layer_count = 1,
                     .width = 64,
                     .head_count = 1,
                     .kv_head_count = 1,
                     .head_width = 8,
                     .ffn_width = 8,
                     .vocab = vocab,
                     .tied_head = true};
  pair models(shape);
  auto const batch = random_batch(shape, {2, 3}, 3);
  auto const plan = lamina::plan_full(1);
  auto const narrow = models.narrow.forward(batch, plan), wide = models.wide.forward(batch, plan);
  double scale = 0;
  CHECK(largest_difference(flat(narrow), flat(wide), scale) <= 1e-5 * scale);
  auto const d_logits =
      random_coefficients<float>(static_cast<index_t>(batch.logit_rows.size()) * shape.vocab, 5);
  models.narrow.backward(as_matrix(d_logits, vocab), plan);
  models.wide.backward(as_matrix(d_logits, vocab), plan);
  auto const some = lamina::all_parameters(models.narrow);
  auto const all = lamina::all_parameters(models.wide);
  for (std::size_t p = 0; p < all.size(); ++p) {
    CAPTURE(all[p].name);
    scale = 0;
    double const difference = largest_difference(some[p].gradient, all[p].gradient, scale);
    CHECK(difference <= (1 / 256.0 + 1e-4) * scale);
  }
}

TEST_CASE("decoder in bf16: weights and gradients take half the bytes") {
  config const shape = small_configs()[4].shape;
  pair models(shape);
  auto const bytes = [](auto const& parameters) {
    index_t total = 0;
    for (auto const& p : parameters) {
      total += (p.weight.size + p.gradient.size) * static_cast<index_t>(sizeof(p.weight[0]));
    }
    return total;
  };
  auto const plan = plan_backward(3, single_layer(1));
  models.narrow.prepare(plan);
  models.wide.prepare(plan);
  auto const narrow = lamina::all_parameters(models.narrow);
  CHECK(2 * bytes(narrow) == bytes(lamina::all_parameters(models.wide)));
  // Gradients and masters exist for the selection only.
  index_t trained = 0;
  for (auto const& p : narrow) {
    CHECK(p.gradient.empty() == (p.layer != 1));
    if (p.layer == 1) trained += p.weight.size;
  }
  lamina::adamw optimizer(models.narrow.backend(), lamina::trained_parameters(models.narrow, plan));
  CHECK(optimizer.state().element_count() == trained);
  CHECK(optimizer.state().slot_count() == 3);
  CHECK(optimizer.slot_name(2) == "master_weight");
}

TEST_CASE("decoder in bf16: steps below the resolution of bf16 add up in the masters") {
  config const shape = small_configs()[1].shape;
  pair models(shape);
  auto& model = models.narrow;
  auto const plan = plan_backward(3, single_layer(1));
  auto const batch = random_batch(shape, {9, 7, 9, 5}, 3);
  std::vector<std::int32_t> chosen(batch.logit_rows.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) chosen[i] = static_cast<std::int32_t>(i % 11);
  auto const tokens = static_cast<index_t>(chosen.size());
  std::vector<index_t> const offsets{0, tokens};
  std::vector<float> const advantages{1};
  std::vector<float> old_log_probs(chosen.size()), log_probs(chosen.size()),
      d_log_probs(chosen.size()), reference_log_probs(chosen.size());
  lamina::prefix_cache cache(model, plan);
  lamina::frozen_copy reference(model, plan);
  auto const prefix = cache.fill(model, batch);
  auto const score = [&](std::vector<float>& out) {
    lamina::token_log_probs(model.backend(), prefix.forward(model, batch, plan), chosen, {}, 1.0,
                            out);
  };
  score(old_log_probs);
  model.prepare(plan);
  lamina::adamw optimizer(model.backend(), lamina::trained_parameters(model, plan),
                          {.learning_rate = 2e-4, .weight_decay = 0});
  lamina::weight_snapshot const before(lamina::all_parameters(model));
  double first = 0, last = 0;
  for (int step = 0; step < 40; ++step) {
    auto const result =
        lamina::train_step(model.backend(), model, lamina::grpo{}, plan, prefix, batch,
                           {.offsets = offsets,
                            .token_ids = chosen,
                            .old_log_probs = old_log_probs,
                            .advantages = advantages,
                            .denominators = {.sequences = 1, .tokens = tokens}},
                           {log_probs, d_log_probs}, optimizer);
    if (step == 0) {
      CHECK(same_bits(log_probs, old_log_probs));
      first = result.policy.loss;
    }
    last = result.policy.loss;
  }
  CHECK(last < first - 0.01);
  CHECK(lamina::audit(before, lamina::all_parameters(model), plan).passed());
  reference.with(model, [&] { score(reference_log_probs); });
  CHECK(same_bits(reference_log_probs, old_log_probs));
}

TEST_CASE("decoder in bf16: rollouts are those of the same weights in float") {
  config const shape = small_configs()[4].shape;
  pair models(shape);
  std::vector<std::vector<std::int32_t>> const prompts{{3, 1, 4}, {1}};
  auto const narrow = sample(models.narrow, prompts, 3, fixed_length{}, {.seed = 5}, 12);
  auto const wide = sample(models.wide, prompts, 3, fixed_length{}, {.seed = 5}, 12);
  CHECK(narrow.tokens == wide.tokens);
  CHECK(same_bits(narrow.log_probs, wide.log_probs));
}
