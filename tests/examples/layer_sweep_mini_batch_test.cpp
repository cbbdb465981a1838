// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/mini_batch.hpp"

#include <doctest/doctest.h>

#include <vector>

using layer_sweep::mini_batch;

namespace {

// Three rollouts of prompts of two tokens. The second is of three sampled tokens and one forced
// one, written in tens.
decoder::rollouts three_rollouts() {
  decoder::rollouts r;
  r.tokens = {1, 2, 3, 4, /**/ 1, 2, 13, 90, 14, 15, /**/ 1, 2, 5};
  r.offsets = {0, 4, 10, 13};
  r.prompt_lengths = {2, 2, 2};
  r.sampled = {0, 0, 1, 1, /**/ 0, 0, 1, 0, 1, 1, /**/ 0, 0, 1};
  r.log_probs = {0, 0, -0.3f, -0.4f, /**/ 0, 0, -1.3f, 0, -1.4f, -1.5f, /**/ 0, 0, -0.5f};
  return r;
}

template <class T>
std::vector<T> copy(lamina::vector_view<T const> view) {
  return {view.begin(), view.end()};
}

}  // namespace

TEST_CASE("mini_batch: sampled tokens are the batch, prompts and observations are context") {
  mini_batch const batch(three_rollouts(), {1, -1, 0.5f}, 0, 3);
  auto const policy = batch.policy();
  CHECK(copy(policy.token_ids) == std::vector<std::int32_t>{3, 4, 13, 14, 15, 5});
  CHECK(copy(policy.offsets) == std::vector<lamina::index_t>{0, 2, 5, 6});
  CHECK(copy(policy.old_log_probs) == std::vector<float>{-0.3f, -0.4f, -1.3f, -1.4f, -1.5f, -0.5f});
  CHECK(copy(policy.advantages) == std::vector<float>{1, -1, 0.5f});
  // Logits are wanted at the token before each sampled one, a forced one included.
  std::vector<std::int32_t> before;
  for (lamina::index_t const row : batch.tokens().logit_rows) {
    before.push_back(batch.tokens().tokens[static_cast<std::size_t>(row)]);
  }
  CHECK(before == std::vector<std::int32_t>{2, 3, 2, 90, 14, 2});
}

TEST_CASE("mini_batch: rollouts with advantage 0 are left out but counted") {
  mini_batch const batch(three_rollouts(), {1, 0, 0.5f}, 0, 3);
  CHECK(copy(batch.policy().token_ids) == std::vector<std::int32_t>{3, 4, 5});
  CHECK(batch.policy().denominators.sequences == 3);
  CHECK(batch.policy().denominators.tokens == 6);
}

TEST_CASE("mini_batch: a part holds its own rollouts and counts only them") {
  mini_batch const batch(three_rollouts(), {1, -1, 0.5f}, 1, 3);
  CHECK(copy(batch.policy().token_ids) == std::vector<std::int32_t>{13, 14, 15, 5});
  CHECK(batch.policy().denominators.sequences == 2);
  CHECK(batch.policy().denominators.tokens == 4);
}

TEST_CASE("mini_batch: equal rewards leave nothing to step on") {
  mini_batch const batch(three_rollouts(), {0, 0, 0}, 0, 3);
  CHECK(batch.empty());
  CHECK(batch.policy().denominators.tokens == 6);
}
