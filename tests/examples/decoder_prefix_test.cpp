// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The decoder over a cached prefix: the same bits as without, in logits, gradients and ratios.
#include <doctest/doctest.h>

#include <map>

#include "lamina/backend/eigen.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/model/train_step.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/optim/audit.hpp"
#include "lamina/policy/presets.hpp"
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/backends.hpp"

using namespace decoder;
using namespace decoder::testing;
using lamina::backward_plan;
using lamina::bf16;
using lamina::in_memory;
using lamina::plan_backward;
using lamina::single_layer;
using tensor_role = lamina::parameter_role;

namespace {

using backend_type = lamina::eigen_backend<float>;
using model_type = transformer<backend_type>;
static_assert(lamina::check_prefix_model<model_type>());

model_type random_model(config const& shape) {
  model_type model({}, shape);
  randomize(model, 11);
  return model;
}

// A batch as a policy sees it: one token after every wanted row.
struct rollout_batch {
  explicit rollout_batch(token_batch const& batch, index_t vocab) : tokens(batch) {
    lamina::counter_generator draws(5);
    for (index_t s = 0; s < batch.sequence_count(); ++s) {
      for (index_t const row : batch.logit_rows) {
        if (row < batch.offsets[static_cast<std::size_t>(s)] ||
            row >= batch.offsets[static_cast<std::size_t>(s) + 1]) {
          continue;
        }
        chosen.push_back(static_cast<std::int32_t>(draws.below(static_cast<std::uint32_t>(vocab))));
      }
      offsets.push_back(static_cast<index_t>(chosen.size()));
      advantages.push_back(s % 2 == 0 ? 1.0f : -1.0f);
    }
    for (auto* v : {&old_log_probs, &reference_log_probs, &log_probs, &d_log_probs}) {
      v->resize(chosen.size());
    }
  }
  lamina::policy_batch<float> policy() const {
    return {.offsets = offsets,
            .token_ids = chosen,
            .old_log_probs = old_log_probs,
            .advantages = advantages,
            .denominators = {.sequences = static_cast<index_t>(advantages.size()),
                             .tokens = static_cast<index_t>(chosen.size())}};
  }
  lamina::policy_outputs<float> outputs() { return {log_probs, d_log_probs, {}}; }

  token_batch tokens;
  std::vector<index_t> offsets{0};
  std::vector<std::int32_t> chosen;
  std::vector<float> advantages, old_log_probs, reference_log_probs, log_probs, d_log_probs;
};

}  // namespace

TEST_CASE("decoder: prefix and suffix have the bits of forward, in logits and gradients") {
  for (named_config const& tested : small_configs()) {
    config const& shape = tested.shape;
    CAPTURE(tested.name);
    auto const batch = random_batch(shape, {5, 2, 9, 4}, 3);
    auto const d_logits =
        random_coefficients<float>(static_cast<index_t>(batch.logit_rows.size()) * shape.vocab, 5);
    for (index_t layer = 0; layer <= shape.layer_count; ++layer) {
      auto const plan = layer == shape.layer_count
                            ? plan_backward(3, {}, {.final_norm = true})
                            : plan_backward(3, single_layer(layer), {.final_norm = true});
      auto whole = random_model(shape), parts = random_model(shape);
      auto const expected = copy_of(whole.forward(batch, plan));
      whole.backward(as_matrix(d_logits, shape.vocab), plan);

      auto const stream = copy_of(parts.forward_prefix(batch, layer));
      CHECK(same_bits(
          copy_of(parts.forward_suffix(batch, layer, as_matrix(stream, shape.width), plan)),
          expected));
      parts.backward(as_matrix(d_logits, shape.vocab), plan);
      auto const some = lamina::all_parameters(parts), all = lamina::all_parameters(whole);
      for (std::size_t i = 0; i < all.size(); ++i) {
        CAPTURE(all[i].name);
        CHECK(same_bits(some[i].gradient, all[i].gradient));
      }
      // Straight from one to the other, without a copy of the host's.
      CHECK(same_bits(
          copy_of(parts.forward_suffix(batch, layer, parts.forward_prefix(batch, layer), plan)),
          expected));
    }
  }
}

TEST_CASE("decoder: a stream from below the plan's lowest layer does as well") {
  config const shape = small_configs()[4].shape;
  auto model = random_model(shape);
  auto const batch = random_batch(shape, {5, 2, 9}, 3);
  auto const plan = plan_backward(3, single_layer(2));
  auto const expected = copy_of(model.forward(batch, plan));
  for (index_t layer = 0; layer < 3; ++layer) {
    auto const stream = copy_of(model.forward_prefix(batch, layer));
    CHECK(
        same_bits(copy_of(model.forward_suffix(batch, layer, as_matrix(stream, shape.width), plan)),
                  expected));
  }
}

TEST_CASE("decoder: sequences drawn from a cached batch have the logits of their own pass") {
  config const shape = small_configs()[4].shape;
  // This backend's product treats every row alike, so that the bits do not depend on neighbours.
  transformer<lamina::testing::minimal_backend<float>> model({}, shape);
  randomize(model, 11);
  auto const batch = random_batch(shape, {5, 2, 9, 4}, 3);
  auto const plan = plan_backward(3, single_layer(1));
  lamina::prefix_cache cache(model, plan);
  auto const prefix = cache.fill(model, batch);
  for (std::vector<index_t> const& sequences :
       {std::vector<index_t>{2}, {3, 0}, {0, 1, 2}, {1, 3, 2, 0}}) {
    auto const part = select(batch, sequences);
    auto const rows = token_rows(batch, sequences);
    auto const logits = copy_of(prefix.select(rows).forward(model, part, plan));
    CHECK(same_bits(logits, copy_of(model.forward(part, plan))));
  }
  CHECK_THROWS_WITH_AS(select(batch, std::vector<index_t>{4}),
                       "decoder::select: sequence 4 is wanted, the batch has 4",
                       lamina::shape_error);
  CHECK_THROWS_AS(select(batch, std::vector<index_t>{}), lamina::shape_error);
}

TEST_CASE_TEMPLATE("decoder: on-policy ratios from a cached prefix are exactly 1", Storage,
                   in_memory<float>, in_memory<bf16>) {
  config const shape = small_configs()[4].shape;
  auto model = random_model(shape);
  auto const plan = plan_backward(3, single_layer(1));
  rollout_batch batch(random_batch(shape, {5, 3, 9, 4}, 3), shape.vocab);
  lamina::prefix_cache cache(model, plan, Storage{});
  auto const prefix = cache.fill(model, batch.tokens);
  lamina::token_log_probs(model.backend(), prefix.forward(model, batch.tokens, plan), batch.chosen,
                          {}, 1.0, batch.old_log_probs);
  model.prepare(plan);
  lamina::adamw optimizer(model.backend(), lamina::trained_parameters(model, plan),
                          {.learning_rate = 1e-2});
  auto const step = [&] {
    return lamina::train_step(model.backend(), model, lamina::grpo{}, plan, prefix, batch.tokens,
                              batch.policy(), batch.outputs(), optimizer);
  };
  lamina::weight_snapshot const before(lamina::all_parameters(model));
  auto const first = step();
  CHECK(same_bits(batch.log_probs, batch.old_log_probs));
  CHECK(first.policy.metrics.ratio_mean == 1);
  CHECK(first.policy.metrics.ratio_min == 1);
  CHECK(first.policy.metrics.ratio_max == 1);
  CHECK(lamina::audit(before, lamina::all_parameters(model), plan).passed());
  step();
  CHECK_FALSE(same_bits(batch.log_probs, batch.old_log_probs));
}

TEST_CASE("decoder: prefixes and streams that do not fit are refused") {
  config const shape = small_configs()[4].shape;
  auto model = random_model(shape);
  auto const batch = random_batch(shape, {5}, 3);
  auto const plan = plan_backward(3, single_layer(1));
  std::vector<float> const stream(5 * 8);
  CHECK_THROWS_WITH_AS(model.forward_prefix(batch, 4),
                       "decoder::forward_prefix: layer is 4, expected 0..3", lamina::config_error);
  CHECK_THROWS_WITH_AS(
      model.forward_suffix(batch, 2, as_matrix(stream, 8), plan),
      "decoder::forward_suffix: the plan stops at layer 1, the stream enters layer 2",
      lamina::config_error);
  CHECK_THROWS_WITH_AS(
      model.forward_suffix(batch, 1, as_matrix(stream, 10), plan),
      "decoder::forward_suffix: the stream is 4 x 10, expected tokens x width = 5 x 8",
      lamina::shape_error);
  model.forward_prefix(batch, 2);
  std::vector<float> const d_logits(batch.logit_rows.size() * 11);
  CHECK_THROWS_WITH_AS(model.backward(as_matrix(d_logits, 11), plan),
                       "decoder::backward: no forward pass came before", lamina::shape_error);
}
