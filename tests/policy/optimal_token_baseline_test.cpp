// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/optimal_token_baseline.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "lamina/policy/token_advantage.hpp"
#include "tests/support/random_rewards.hpp"
#include "tests/support/reference_file.hpp"

using namespace lamina;
using testing::advantages_of;
using testing::agree;

namespace {

double const missing = std::numeric_limits<double>::quiet_NaN();
double const sure = 0.0;  // the log-prob of a token that was certain

// w of a token is 1 - 2 p + s: with p = 1/2 it is s.
double const half = std::log(0.5);

}  // namespace

TEST_CASE("optimal token baseline by hand: returns weighted by the gradient's norm so far") {
  // Two rollouts of two tokens; w = 1, 1 and 0.5, 0.25, so W = 1, 2 and 0.5, 0.75.
  std::vector<index_t> const offsets{0, 2, 4};
  std::vector<double> const rewards{1, 2, 0, 1}, log_probs(4, half), squares{1, 1, 0.5, 0.25};
  reward_batch<double> const batch{.groups = prompt_groups::uniform(2, 2),
                                   .offsets = offsets,
                                   .token_rewards = rewards,
                                   .old_log_probs = log_probs,
                                   .squared_probabilities = squares};
  // g = 3, 2 and 1, 1. Baselines (3 + 0.5) / 1.5 and (4 + 0.75) / 2.75.
  double const first = 3.5 / 1.5, second = 4.75 / 2.75;
  optimal_token_baseline const rule{.epsilon = 0};
  CHECK(agree(advantages_of(rule, batch), {3 - first, 2 - second, 1 - first, 1 - second}, 1e-14));
  // Weights of a rollout correction enter squared: w = 4, 4 for the first rollout.
  std::vector<double> const rho{2, -2, 1, 1};
  auto weighted = batch;
  weighted.rollout_weights = rho;
  double const third = 12.5 / 4.5, fourth = 16.75 / 8.75;
  CHECK(
      agree(advantages_of(rule, weighted), {3 - third, 2 - fourth, 1 - third, 1 - fourth}, 1e-14));
}

TEST_CASE("verl: both forms, with rollout weights, with and without the tail of the longest") {
  auto const file = testing::read_reference("advantage_vectors.json");
  for (auto const& c : file["verl"]) {
    auto const batch = testing::peer_batch(c);
    auto weightless = batch.view();
    weightless.rollout_weights = {};
    auto const& expected = c["expected"];
    auto const check = [&](token_position position, std::string const& name) {
      optimal_token_baseline rule{.position = position};
      CHECK(agree(advantages_of(rule, weightless), testing::numbers_of(expected[name])));
      CHECK(agree(advantages_of(rule, batch), testing::numbers_of(expected[name + "_weighted"])));
      rule.zero_tail = false;
      if (expected.contains(name + "_full_tail")) {
        CHECK(agree(advantages_of(rule, weightless),
                    testing::numbers_of(expected[name + "_full_tail"])));
      }
    };
    check(token_position::in_sequence, "otb");
    check(token_position::among_active, "tir_otb");
  }
}

TEST_CASE("a rollout on its own keeps its returns: alone, beyond the others, or among empty ones") {
  std::vector<index_t> const offsets{0, 3, 4, 4};
  std::vector<double> const rewards{1, 2, 4, 8}, log_probs(4, half), squares(4, 1.0);
  reward_batch<double> batch{.groups = prompt_groups::uniform(3, 3),
                             .offsets = offsets,
                             .token_rewards = rewards,
                             .old_log_probs = log_probs,
                             .squared_probabilities = squares};
  optimal_token_baseline rule{.epsilon = 0};
  // Only the first position is shared; there the baseline is (7 + 8) / 2.
  CHECK(agree(advantages_of(rule, batch), {-0.5, 6, 4, 0.5}, 1e-14));
  rule.zero_tail = false;
  CHECK(agree(advantages_of(rule, batch), {-0.5, 0, 0, 0.5}, 1e-14));
  std::vector<std::uint8_t> const mask{1, 1, 1, 0};
  batch.mask = mask;
  CHECK(advantages_of(rule, batch) == std::vector<double>{7, 6, 4, 0});
  batch.groups = prompt_groups::uniform(3, 1);
  batch.mask = {};
  CHECK(advantages_of(rule, batch) == std::vector<double>{7, 6, 4, 8});
}

TEST_CASE("tokens that were certain weigh nothing, also where their norm rounds below 0") {
  std::vector<index_t> const offsets{0, 1, 2};
  std::vector<double> const rewards{1, 3}, log_probs{sure, sure}, squares{1 - 1e-12, 1};
  reward_batch<double> const batch{.groups = prompt_groups::uniform(2, 2),
                                   .offsets = offsets,
                                   .token_rewards = rewards,
                                   .old_log_probs = log_probs,
                                   .squared_probabilities = squares};
  for (double epsilon : {1e-8, 0.0}) {
    CHECK(advantages_of(optimal_token_baseline{.epsilon = epsilon}, batch) ==
          std::vector<double>{1, 3});
  }
}

TEST_CASE("with equal weights the baseline is the mean return at the position") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    auto batch = testing::random_rewards<double>(seed);
    for (std::size_t t = 0; t < batch.mask.size(); ++t) {
      batch.old_log_probs[t] = half;
      batch.squared_probabilities[t] = 0.5;
    }
    batch.rollout_weights.clear();
    auto const view = batch.view();
    optimal_token_baseline const rule{.epsilon = 0, .zero_tail = false};
    auto const a = advantages_of(rule, view);
    for (index_t g = 0; g < view.groups.group_count(); ++g) {
      std::vector<double> sums(7, 0.0);
      index_t present = 0;
      for (index_t i : view.groups.rollouts(g)) {
        std::size_t position = 0;
        for (index_t t = view.offsets[i]; t < view.offsets[i + 1]; ++t) {
          if (view.active(t)) sums[position++] += a[static_cast<std::size_t>(t)];
        }
        present += position > 0 ? 1 : 0;
      }
      if (present < 2) continue;
      for (double sum : sums) CHECK(std::abs(sum) < 1e-12);
    }
  }
}

TEST_CASE("laws: padding changes no bit, masked tokens are 0, order of rollouts nothing") {
  optimal_token_baseline const rules[] = {
      {}, {.position = token_position::in_sequence}, {.zero_tail = false}};
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    auto const batch = testing::random_rewards<double>(seed);
    std::size_t const count = batch.ids.size();
    std::vector<std::size_t> same(count);
    std::iota(same.begin(), same.end(), std::size_t{0});
    auto const order = testing::random_order(seed, count);
    auto const padded = batch.in_order(same, 2);
    for (auto const& rule : rules) {
      auto const a = advantages_of(rule, batch);
      auto const a_padded = advantages_of(rule, padded);
      auto const a_permuted = advantages_of(rule, batch.in_order(order));
      std::vector<double> unpadded, ordered;
      for (std::size_t i = 0; i < count; ++i) {
        unpadded.insert(unpadded.end(), a_padded.begin() + padded.offsets[i],
                        a_padded.begin() + padded.offsets[i + 1] - 2);
        ordered.insert(ordered.end(), a.begin() + batch.offsets[order[i]],
                       a.begin() + batch.offsets[order[i] + 1]);
      }
      CHECK(unpadded == a);
      CHECK(agree(a_permuted, ordered, 1e-11));
      for (std::size_t t = 0; t < a.size(); ++t) {
        CHECK(is_finite(a[t]));
        if (batch.mask[t] == 0) CHECK(a[t] == 0);
      }
    }
  }
}

TEST_CASE("positions among active tokens do not see masked tokens in between") {
  std::vector<index_t> const offsets{0, 4, 6}, packed{0, 2, 4};
  std::vector<std::uint8_t> const mask{1, 0, 0, 1, 1, 1};
  std::vector<double> const rewards{1, missing, missing, 2, 3, 5};
  std::vector<double> const log_probs(6, half), squares{1, missing, missing, 0.5, 0.5, 1};
  std::vector<double> const packed_rewards{1, 2, 3, 5}, packed_squares{1, 0.5, 0.5, 1};
  reward_batch<double> const batch{.groups = prompt_groups::uniform(2, 2),
                                   .offsets = offsets,
                                   .mask = mask,
                                   .token_rewards = rewards,
                                   .old_log_probs = log_probs,
                                   .squared_probabilities = squares};
  reward_batch<double> dense = batch;
  dense.offsets = packed;
  dense.mask = {};
  dense.token_rewards = packed_rewards;
  dense.old_log_probs = vector_view<double const>(log_probs).subview(0, 4);
  dense.squared_probabilities = packed_squares;
  auto const a = advantages_of(optimal_token_baseline{}, batch);
  auto const b = advantages_of(optimal_token_baseline{}, dense);
  CHECK(a == std::vector<double>{b[0], 0, 0, b[1], b[2], b[3]});
  CHECK(a != advantages_of(optimal_token_baseline{.position = token_position::in_sequence}, batch));
}

TEST_CASE("statistics compare the whole rewards of the group; outcome rewards will do") {
  std::vector<index_t> const offsets{0, 1, 3};
  std::vector<double> const rewards{2, 2}, log_probs(3, half), squares(3, 1.0);
  std::vector<double> out(3);
  auto const statistics =
      optimal_token_baseline{}.compute(reward_batch<double>{.rewards = rewards,
                                                            .groups = prompt_groups::uniform(2, 2),
                                                            .offsets = offsets,
                                                            .old_log_probs = log_probs,
                                                            .squared_probabilities = squares},
                                       vector_view<double>(out));
  CHECK(statistics.group_count == 1);
  CHECK(statistics.zero_spread_groups == 1);
  CHECK(statistics.reward_mean == 2);
  CHECK(agree(out, {0, 0, 2}, 1e-7));  // the last token is beyond the other rollout
}

TEST_CASE("advantages may overwrite token rewards; float agrees with double") {
  auto const batch = testing::random_rewards<double>(5);
  auto in_place = batch;
  optimal_token_baseline{}.compute(in_place.view(), vector_view<double>(in_place.token_rewards));
  CHECK(in_place.token_rewards == advantages_of(optimal_token_baseline{}, batch));
  auto const narrow = testing::random_rewards<float>(5);
  CHECK(agree(advantages_of(optimal_token_baseline{}, narrow),
              advantages_of(optimal_token_baseline{}, narrow.in_double()), 1e-6));
}

TEST_CASE("bad input is named with its value, and nothing is written") {
  std::vector<double> out{7, 7};
  std::vector<index_t> const offsets{0, 1, 2};
  std::vector<double> const two{1, 1}, three{1, 1, 1}, with_nan{1, missing}, large{1, 2.5};
  auto const compute = [&](optimal_token_baseline const& rule, reward_batch<double> batch) {
    batch.offsets = offsets;
    batch.token_rewards = two;
    rule.compute(batch, vector_view<double>(out));
  };
  auto const groups = prompt_groups::uniform(2, 2);
  CHECK_THROWS_WITH_AS(compute({}, {.groups = prompt_groups::uniform(3, 3)}),
                       "optimal_token_baseline: the groups hold 3 rollouts, the offsets 2; "
                       "expected equal counts",
                       shape_error);
  CHECK_THROWS_WITH_AS(compute({}, {.groups = groups, .old_log_probs = three}),
                       "optimal_token_baseline: old_log_probs has 3 entries, the batch has 2 "
                       "tokens",
                       shape_error);
  CHECK_THROWS_WITH_AS(
      compute({}, {.groups = groups, .old_log_probs = with_nan, .squared_probabilities = two}),
      "optimal_token_baseline: old_log_probs[1] is nan, expected a finite number "
      "of magnitude 1e+140 at most",
      config_error);
  CHECK_THROWS_WITH_AS(
      compute({}, {.groups = groups, .old_log_probs = two, .squared_probabilities = large}),
      "optimal_token_baseline: squared_probabilities[1] is 2.5, expected a finite number of "
      "magnitude 2 at most",
      config_error);
  CHECK_THROWS_WITH_AS(compute({}, {.groups = groups,
                                    .old_log_probs = two,
                                    .squared_probabilities = two,
                                    .rollout_weights = with_nan}),
                       "optimal_token_baseline: rollout_weights[1] is nan, expected a finite "
                       "number of magnitude 1e+06 at most",
                       config_error);
  CHECK_THROWS_WITH_AS(compute({.epsilon = -1}, {.groups = groups}),
                       "optimal_token_baseline: epsilon is -1, expected a finite value >= 0",
                       config_error);
  CHECK(out == std::vector<double>{7, 7});
}
