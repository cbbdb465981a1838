// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/score.hpp"

#include <doctest/doctest.h>

#include "examples/decoder/transformer.hpp"
#include "examples/layer_sweep/task_agent.hpp"
#include "examples/toy_task.hpp"
#include "lamina/backend/eigen.hpp"

using namespace layer_sweep;
using layer_sweep::testing::toy_task;

namespace {

using backend = lamina::eigen_backend<float>;

decoder::transformer<backend> new_model(index_t vocab) {
  decoder::transformer<backend> model(backend{}, {.layer_count = 2, .vocab = vocab});
  model.initialize(3);
  return model;
}

// Each of the three letters `count` times.
std::vector<int> letters(int count) {
  std::vector<int> prompts;
  for (int i = 0; i < 3 * count; ++i) prompts.push_back(i % 3);
  return prompts;
}

}  // namespace

TEST_CASE("score: the exact score is what sampling comes to, within its error") {
  auto model = new_model(4);
  score const exact = exact_score(toy_task{}, letters(1))(model);
  score const sampled = sampled_score(toy_task{}, letters(500))(model);
  CHECK(exact.error == 0);
  CHECK(exact.value > 0.02);
  // 6000 draws: sqrt(p (1 - p) / 6000) is 0.003 at p = 1/16, and the reported error knows it.
  CHECK(sampled.error ==
        doctest::Approx(std::sqrt(exact.value * (1 - exact.value) / 6000)).epsilon(0.1));
  CHECK(std::abs(sampled.value - exact.value) < 4 * sampled.error);
}

TEST_CASE("score: scores do not depend on how the prompts are cut into parts") {
  auto model = new_model(4);
  double const once = exact_score(toy_task{}, letters(1))(model).value;
  CHECK(exact_score(toy_task{}, letters(100))(model).value == doctest::Approx(once).epsilon(1e-6));
}

TEST_CASE("score: sampling is the same every time and its noise differs between prompts") {
  auto model = new_model(4);
  sampled_score const score(toy_task{}, letters(20));
  CHECK(score(model).value == score(model).value);
  CHECK(sampled_score(toy_task{}, letters(500))(model).error > 0);
}

TEST_CASE("score: multi-turn episodes are scored too") {
  auto model = new_model(static_cast<index_t>(agent_task::vocabulary.size()));
  auto const some = evaluation_prompts(agent_task{}, 40);
  CHECK(some.size() == 40);
  score const measured = sampled_score(agent_task{}, some)(model);
  CHECK(measured.value >= 0);
  CHECK(measured.value < 0.5);
}

TEST_CASE("evaluation_prompts: all, or some that are spread evenly and different") {
  auto const all = evaluation_prompts(agent_task{}, 0);
  CHECK(all == agent_task::evaluation_prompts());
  CHECK(evaluation_prompts(agent_task{}, 1'000'000).size() == all.size());
  auto const some = evaluation_prompts(agent_task{}, 7);
  REQUIRE(some.size() == 7);
  for (std::size_t i = 1; i < 7; ++i) CHECK_FALSE(some[i] == some[i - 1]);
}

TEST_CASE("score: a sampled and greedy score agrees with the sampled one and counts responses") {
  auto model = new_model(4);
  auto const drawn = sampled_score(toy_task{}, letters(20))(model);
  score const both = sampled_and_greedy_score(toy_task{}, letters(20), 4, 1.0)(model);
  CHECK(both.value == drawn.value);
  CHECK(both.error == drawn.error);
  auto const detail = [&both](std::string_view name) {
    for (auto const& number : both.details) {
      if (number.name == name) return number.value;
    }
    return -1.0;
  };
  // Every response of the toy has two tokens and ends by itself.
  CHECK(detail(truncation_rate) == 0);
  CHECK(detail(greedy_truncation_rate) == 0);
  CHECK(detail(response_tokens) == 2);
  CHECK(detail(greedy_response_tokens) == 2);
  // Greedily, a prompt is right or wrong whatever the noise.
  double const greedy = detail(greedy_score);
  CHECK(greedy * 3 == doctest::Approx(std::round(greedy * 3)));
}

TEST_CASE("score: a cold sample is the greedy one") {
  auto model = new_model(4);
  score const cold = sampled_and_greedy_score(toy_task{}, letters(20), 4, 0.01)(model);
  CHECK(cold.value == cold.details[0].value);
  CHECK(cold.error == 0);
}
