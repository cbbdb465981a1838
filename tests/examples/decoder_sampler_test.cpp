// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sampling: what a rollout becomes does not depend on what runs beside it, and its log-probs are
// those of the forward pass.
#include "examples/decoder/sampler.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "lamina/backend/eigen.hpp"
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/backends.hpp"
#include "tests/support/threaded_lanes.hpp"

using namespace decoder;
using namespace decoder::testing;

namespace {

using backend_type = lamina::eigen_backend<float>;
using prompt_list = std::vector<std::vector<std::int32_t>>;

config small() { return small_configs()[2].shape; }

template <class Backend = backend_type>
transformer<Backend> random_model(config const& shape, Backend backend = {}) {
  transformer<Backend> model(backend, shape);
  randomize(model, 21);
  return model;
}

prompt_list const prompts{{1, 2, 3}, {4}, {5, 6, 7, 8, 9}, {10, 0}, {3, 3, 3}};

/// Rows [first, first + count) of a batch, unpacked.
struct row_view {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> sampled;
  std::vector<float> log_probs;
  std::vector<float> log_kept;
  bool operator==(row_view const&) const = default;
};
row_view row_of(rollouts const& r, index_t row) {
  auto const i = static_cast<std::size_t>(row);
  auto const begin = r.offsets[i], end = r.offsets[i + 1];
  return {{r.tokens.begin() + begin, r.tokens.begin() + end},
          {r.sampled.begin() + begin, r.sampled.begin() + end},
          {r.log_probs.begin() + begin, r.log_probs.begin() + end},
          {r.log_kept.begin() + begin, r.log_kept.begin() + end}};
}

/// Forces two observations after even tokens; ends an episode at token 7 or after three draws, so
/// that a row grows by nine tokens at most.
struct observing_session {
  std::vector<std::string> log;
  std::map<index_t, int> draws;
  bool advance(index_t row, std::int32_t token, std::vector<std::int32_t>& forced) {
    log.push_back(std::to_string(row) + ":" + std::to_string(token));
    if (token % 2 == 0) forced = {1, 9};
    return token != 7 && ++draws[row] < 3;
  }
};

/// Log-probs that the training forward gives to the sampled tokens, in double.
template <class Model>
std::vector<double> trainer_log_probs(Model& model, rollouts const& r, double temperature) {
  std::vector<std::int32_t> targets;
  auto const logits = model.forward(predict(r.tokens, r.offsets, r.sampled, &targets));
  std::vector<double> result;
  for (index_t i = 0; i < logits.rows; ++i) {
    auto const scaled = [&](index_t v) { return static_cast<double>(logits(i, v)) / temperature; };
    double total = 0;
    for (index_t v = 0; v < logits.cols; ++v) total += std::exp(scaled(v));
    result.push_back(scaled(targets[static_cast<std::size_t>(i)]) - std::log(total));
  }
  return result;
}

template <class Model>
double largest_gap(Model& model, rollouts const& r, double temperature) {
  auto const expected = trainer_log_probs(model, r, temperature);
  double gap = 0;
  std::size_t next = 0;
  for (std::size_t i = 0; i < r.tokens.size(); ++i) {
    if (r.sampled[i] == 0) {
      CHECK(r.log_probs[i] == 0);
    } else {
      gap = std::max(gap, std::abs(static_cast<double>(r.log_probs[i]) - expected[next++]));
    }
  }
  CHECK(next == expected.size());
  return gap;
}

}  // namespace

TEST_CASE("decoder::sample: a rollout has the same bits alone and in any batch") {
  for (named_config const& entry : small_configs()) {
    CAPTURE(entry.name);
    config const& shape = entry.shape;
    auto model = random_model(shape);
    index_t const copies = 9;  // 45 rows: two blocks, the second not full
    sampling_options const options{.allowed = {.top_p = 0.9}, .seed = 5, .step = 3};
    rollouts const together = sample(model, prompts, copies, observing_session{}, options, 14);
    for (index_t p = 0; p < 5; ++p) {
      sampling_options alone = options;
      alone.first_row = p * copies;
      rollouts const one = sample(model, std::span(prompts).subspan(static_cast<std::size_t>(p), 1),
                                  copies, observing_session{}, alone, 14);
      for (index_t copy = 0; copy < copies; ++copy) {
        CHECK(row_of(one, copy) == row_of(together, p * copies + copy));
      }
    }
  }
}

TEST_CASE_TEMPLATE("decoder::sample: log-probs are those of the training forward", Backend,
                   lamina::eigen_backend<float>, lamina::eigen_backend<double>,
                   lamina::testing::minimal_backend<float>) {
  for (named_config const& entry : small_configs()) {
    CAPTURE(entry.name);
    config const& shape = entry.shape;
    auto model = random_model(shape, Backend{});
    for (double const temperature : {1.0, 0.6}) {
      rollouts const r = sample(model, prompts, 4, observing_session{},
                                {.temperature = temperature, .seed = 1}, 20);
      CHECK(largest_gap(model, r, temperature) <= 2e-6);
    }
  }
}

TEST_CASE("decoder::sample: the cache and the full forward agree over 60 tokens") {
  auto model = random_model(small());
  rollouts const r = sample(model, prompts, 2, fixed_length{}, {.seed = 2}, 64);
  CHECK(r.tokens.size() == 10 * 64);
  CHECK(largest_gap(model, r, 1.0) <= 5e-6);
}

TEST_CASE("decoder::sample: greedy takes the most likely token and reports its log-prob") {
  auto model = random_model(small());
  rollouts const r = sample(model, prompts, 2, fixed_length{}, {.greedy = true}, 9);
  CHECK(largest_gap(model, r, 1.0) <= 2e-6);
  CHECK(row_of(r, 0) == row_of(r, 1));
  std::vector<std::int32_t> targets;
  auto const logits = model.forward(predict(r.tokens, r.offsets, r.sampled, &targets));
  for (index_t i = 0; i < logits.rows; ++i) {
    auto const row = logits.row(i);
    CHECK(std::max_element(row.begin(), row.end()) - row.begin() ==
          targets[static_cast<std::size_t>(i)]);
  }
}

TEST_CASE("decoder::sample: prompts, draws and observations are laid out and marked") {
  auto model = random_model(small());
  observing_session session;
  rollouts const r = sample(model, prompts, 3, session, {.seed = 9}, 14);
  CHECK(r.row_count() == 15);
  std::size_t drawn = 0;
  bool ended_early = false, observed = false;
  for (index_t row = 0; row < 15; ++row) {
    CAPTURE(row);
    auto const& prompt = prompts[static_cast<std::size_t>(row / 3)];
    row_view const view = row_of(r, row);
    REQUIRE(view.tokens.size() <= 14);
    CHECK(r.prompt_lengths[static_cast<std::size_t>(row)] == static_cast<index_t>(prompt.size()));
    CHECK(std::equal(prompt.begin(), prompt.end(), view.tokens.begin()));
    std::size_t t = 0;
    while (t < prompt.size()) CHECK(view.sampled[t++] == 0);
    while (t < view.tokens.size()) {
      std::int32_t const token = view.tokens[t];
      CHECK(view.sampled[t++] == 1);
      ++drawn;
      if (token % 2 == 0) {
        REQUIRE(t + 1 < view.tokens.size());
        CHECK(view.tokens[t] == 1);
        CHECK(view.tokens[t + 1] == 9);
        CHECK(view.sampled[t++] == 0);
        CHECK(view.sampled[t++] == 0);
        observed = true;
      }
      if (token == 7) CHECK(t == view.tokens.size());
    }
    auto const draws = std::count(view.sampled.begin(), view.sampled.end(), 1);
    if (draws < 3) CHECK(view.tokens.back() == 7);
    ended_early |= draws < 3;
  }
  CHECK(session.log.size() == drawn);
  CHECK(ended_early);
  CHECK(observed);
  CHECK(session.log[0] == "0:" + std::to_string(row_of(r, 0).tokens[3]));
  CHECK(session.log[14] == "14:" + std::to_string(row_of(r, 14).tokens[3]));
}

TEST_CASE("decoder::sample: seed, step and row change the draws, a second call does not") {
  auto model = random_model(small());
  auto const draw = [&](sampling_options const& options) {
    return sample(model, prompts, 6, fixed_length{}, options, 10).tokens;
  };
  auto const base = draw({.seed = 1, .step = 1});
  CHECK(draw({.seed = 1, .step = 1}) == base);
  CHECK(draw({.seed = 2, .step = 1}) != base);
  CHECK(draw({.seed = 1, .step = 2}) != base);
  CHECK(draw({.seed = 1, .step = 1, .first_row = 1}) != base);
  CHECK(row_of(sample(model, prompts, 6, fixed_length{}, {.seed = 1}, 10), 0) !=
        row_of(sample(model, prompts, 6, fixed_length{}, {.seed = 1}, 10), 1));
}

TEST_CASE("decoder::sampler: one that has run other models and sizes gives the same bits") {
  auto model = random_model(small());
  config wide = small();
  wide.width = 24;
  wide.kv_head_count = 4;
  auto other = random_model(wide);
  rollouts const fresh = sample(model, prompts, 4, observing_session{}, {.seed = 3}, 14);
  sampler<backend_type> used(model.backend());
  used.sample(other, prompts, 40, observing_session{}, {.seed = 8}, 40);
  used.sample(model, prompts, 1, observing_session{}, {.seed = 8}, 33);
  rollouts const again = used.sample(model, prompts, 4, observing_session{}, {.seed = 3}, 14);
  CHECK(again.tokens == fresh.tokens);
  CHECK(again.log_probs == fresh.log_probs);
}

TEST_CASE("decoder::sample: threads and cooperating lanes change nothing") {
  using threads = lamina::testing::spawning_for;
  auto one = random_model(small());
  auto seven = random_model(small(), lamina::eigen_backend<float, threads>{threads{7}, {}});
  rollouts const expected = sample(one, prompts, 3, observing_session{}, {.seed = 3}, 14);
  rollouts const threaded = sample(seven, prompts, 3, observing_session{}, {.seed = 3}, 14);
  CHECK(threaded.tokens == expected.tokens);
  CHECK(threaded.log_probs == expected.log_probs);
  auto lanes = random_model(small(), lamina::testing::threaded_backend<float, 7>{});
  rollouts const cooperative = sample(lanes, prompts, 3, observing_session{}, {.seed = 3}, 14);
  CHECK(cooperative.tokens == expected.tokens);
}

TEST_CASE("decoder::draw_tokens: frequencies are the softmax at the temperature") {
  std::vector<float> logits{0.3f, -1.0f, 1.2f, 0.0f, -5.0f};
  index_t const count = 40000;
  double const temperature = 0.7;
  std::vector<index_t> rows, positions(static_cast<std::size_t>(count), 4);
  for (index_t i = 0; i < count; ++i) rows.push_back(i);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  std::vector<float> log_probs(static_cast<std::size_t>(count)), log_kept(log_probs);
  backend_type{}.executor().run(count, draw_tokens<float>{{.temperature = temperature, .seed = 77},
                                                          {logits.data(), 1, 5},
                                                          count,
                                                          rows,
                                                          positions,
                                                          tokens,
                                                          log_probs,
                                                          log_kept});
  double total = 0, chi_square = 0;
  for (float const x : logits) total += std::exp(static_cast<double>(x) / temperature);
  for (std::int32_t v = 0; v < 5; ++v) {
    double const p =
        std::exp(static_cast<double>(logits[static_cast<std::size_t>(v)]) / temperature) / total;
    double observed = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] != v) continue;
      ++observed;
      CHECK_MESSAGE(std::abs(static_cast<double>(log_probs[i]) - std::log(p)) < 1e-6, v);
    }
    double const expected = p * static_cast<double>(count);
    chi_square += (observed - expected) * (observed - expected) / expected;
  }
  CHECK(chi_square < 18.5);  // 0.1 % of draws with 4 degrees of freedom
}

TEST_CASE("decoder::sample: what makes no sense is refused") {
  auto model = random_model(small());
  auto const refuse = [&](prompt_list const& p, index_t copies, sampling_options const& options,
                          index_t max_length, char const* message) {
    CHECK_THROWS_WITH(sample(model, p, copies, fixed_length{}, options, max_length), message);
  };
  refuse({}, 1, {}, 9, "decoder::sample: there are no prompts");
  refuse({{1}, {}}, 1, {}, 9, "decoder::sample: prompts[1] is empty");
  refuse({{1}}, 0, {}, 9, "decoder::sample: copies is 0, expected at least 1");
  refuse({{1}, {2, 11}}, 1, {}, 9, "decoder::sample: prompts[1][1] is 11, expected 0..10");
  refuse({{1, 2, 3}}, 1, {}, 3,
         "decoder::sample: prompts[0] has 3 tokens, max_length is 3, expected room for at least "
         "one more");
  refuse({{1}}, 1, {.temperature = 0}, 9,
         "decoder::sample: temperature is 0, expected a finite number > 0 (greedy = true draws the "
         "mode)");
  refuse({{1}}, 1, {.temperature = std::numeric_limits<double>::quiet_NaN()}, 9,
         "decoder::sample: temperature is nan, expected a finite number > 0 (greedy = true draws "
         "the mode)");
  refuse({{1}}, 1, {.allowed = {.top_k = -1}}, 9,
         "decoder::sample: top_k is -1, expected a number of tokens, or 0 for all");
  refuse({{1}}, 1, {.allowed = {.top_p = 0}}, 9,
         "decoder::sample: top_p is 0, expected a share in (0, 1]");
  refuse({{1}}, 1, {.allowed = {.min_p = 1.5}}, 9,
         "decoder::sample: min_p is 1.5, expected a share in [0, 1]");

  struct forcing_session {
    std::vector<std::int32_t> tokens;
    bool advance(index_t, std::int32_t, std::vector<std::int32_t>& forced) const {
      forced = tokens;
      return true;
    }
  };
  CHECK_THROWS_WITH(sample(model, prompts, 1, forcing_session{{1, 12}}, {}, 9),
                    "decoder::sample: the session forced token 12 on row 0, expected 0..10");
  CHECK_THROWS_WITH(sample(model, prompts, 1, forcing_session{{1, 1, 1}}, {}, 6),
                    "decoder::sample: the session forced 3 tokens on row 0, which then has 7, "
                    "expected at most max_length = 6");
}
