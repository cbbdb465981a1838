// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Shapes and batches that make no sense are refused by name and value; predict() marks rows.
#include "examples/decoder/batch.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "lamina/backend/eigen.hpp"
#include "tests/examples/decoder_cases.hpp"

using namespace decoder;
using lamina::config_error;
using lamina::shape_error;

namespace {

template <class Change>
config changed(Change const& change) {
  config shape;
  change(shape);
  return shape;
}

using model_type = transformer<lamina::eigen_backend<float>>;

/// A model of 11 tokens that has just run a good batch; bad ones must leave its weights alone.
void refuse(token_batch const& batch, char const* message, bool wrong_value = false) {
  model_type model({}, decoder::testing::small_configs()[0].shape);
  model.initialize(1);
  if (wrong_value) {
    CHECK_THROWS_WITH_AS(model.forward(batch, lamina::plan_full(3)), message, config_error);
  } else {
    CHECK_THROWS_WITH_AS(model.forward(batch, lamina::plan_full(3)), message, shape_error);
  }
  for (auto const& parameter : lamina::all_parameters(model)) CHECK(parameter.gradient.empty());
}

}  // namespace

TEST_CASE("decoder::config: every field that makes no sense is named with its value") {
  CHECK_NOTHROW(check(config{}));
  CHECK_THROWS_WITH_AS(check(changed([](config& s) { s.layer_count = 0; })),
                       "decoder::config: layer_count is 0, expected 1..512", config_error);
  CHECK_THROWS_WITH_AS(check(changed([](config& s) { s.layer_count = 513; })),
                       "decoder::config: layer_count is 513, expected 1..512", config_error);
  CHECK_THROWS_WITH_AS(check(changed([](config& s) { s.width = -1; })),
                       "decoder::config: width is -1, expected 1..1048576", config_error);
  CHECK_THROWS_WITH_AS(check(changed([](config& s) { s.head_count = 0; })),
                       "decoder::config: head_count is 0, expected 1..1024", config_error);
  CHECK_THROWS_WITH_AS(check(changed([](config& s) { s.kv_head_count = 3; })),
                       "decoder::config: kv_head_count is 3, expected 1..2", config_error);
  CHECK_THROWS_WITH_AS(check(changed([](config& s) {
                         s.head_count = 3;
                         s.kv_head_count = 2;
                       })),
                       "decoder::config: kv_head_count is 2, expected a divisor of head_count 3",
                       config_error);
  CHECK_THROWS_WITH_AS(check(changed([](config& s) { s.head_width = 7; })),
                       "decoder::config: head_width is 7, expected an even number (rotary pairs)",
                       config_error);
  CHECK_THROWS_WITH_AS(check(changed([](config& s) { s.ffn_width = 0; })),
                       "decoder::config: ffn_width is 0, expected 1..1048576", config_error);
  CHECK_THROWS_WITH_AS(check(changed([](config& s) { s.vocab = 0; })),
                       "decoder::config: vocab is 0, expected 1..16777216", config_error);
  CHECK_THROWS_WITH_AS(check(changed([](config& s) { s.rope_theta = 0; })),
                       "decoder::config: rope_theta is 0, expected a finite number > 0",
                       config_error);
  CHECK_THROWS_WITH_AS(
      check(changed([](config& s) { s.norm_epsilon = std::numeric_limits<double>::infinity(); })),
      "decoder::config: norm_epsilon is inf, expected a finite number > 0", config_error);
  CHECK_THROWS_AS(model_type({}, changed([](config& s) { s.vocab = -4; })), config_error);
}

TEST_CASE("decoder::forward: a batch that makes no sense is refused before anything runs") {
  refuse({{1, 2}, {}, {0}},
         "decoder::forward: offsets has 0 entries, expected at least 2 (one sequence)");
  refuse({{1, 2}, {1, 2}, {0}}, "decoder::forward: offsets[0] is 1, expected 0");
  refuse({{1, 2}, {0, 0, 2}, {0}},
         "decoder::forward: offsets[1] is 0, expected more than offsets[0] = 0");
  refuse({{1, 2}, {0, 2, 1}, {0}},
         "decoder::forward: offsets[2] is 1, expected more than offsets[1] = 2");
  refuse({{1, 2}, {0, 3}, {0}}, "decoder::forward: offsets ends at 3, there are 2 tokens");
  refuse({{1, 11}, {0, 2}, {0}}, "decoder::forward: tokens[1] is 11, expected 0..10", true);
  refuse({{-1, 1}, {0, 2}, {0}}, "decoder::forward: tokens[0] is -1, expected 0..10", true);
  refuse({{1, 2}, {0, 2}, {}},
         "decoder::forward: logit_rows is empty, expected at least one position");
  refuse({{1, 2}, {0, 2}, {0, 2}}, "decoder::forward: logit_rows[1] is 2, expected 0..1");
  refuse({{1, 2}, {0, 2}, {-1}}, "decoder::forward: logit_rows[0] is -1, expected 0..1");
  refuse({{1, 2}, {0, 2}, {1, 1}},
         "decoder::forward: logit_rows[1] is 1, expected more than logit_rows[0] = 1");
}

TEST_CASE("decoder::predict: the row before every marked token is wanted, what follows is not") {
  std::vector<std::int32_t> targets;
  token_batch const batch =
      predict({7, 8, 9, 1, 4, 4, 5, 6, 2}, {0, 4, 6, 9}, {0, 1, 1, 0, 0, 0, 0, 1, 1}, &targets);
  CHECK(batch.tokens == std::vector<std::int32_t>{7, 8, 5, 6});
  CHECK(batch.offsets == std::vector<index_t>{0, 2, 4});
  CHECK(batch.logit_rows == std::vector<index_t>{0, 1, 2, 3});
  CHECK(targets == std::vector<std::int32_t>{8, 9, 6, 2});
  token_batch const later = predict({7, 8, 9, 5}, {0, 4}, {0, 0, 0, 1}, &targets);
  CHECK(later.tokens == std::vector<std::int32_t>{7, 8, 9});
  CHECK(later.logit_rows == std::vector<index_t>{2});
  CHECK(targets == std::vector<std::int32_t>{5});
  CHECK(predict({7, 8}, {0, 2}, {0, 0}).sequence_count() == 0);
  CHECK_THROWS_WITH_AS(predict({7, 8, 9}, {0, 2, 3}, {0, 1, 1}),
                       "decoder::predict: predicted[2] is set, but it is the first token of "
                       "sequence 1: nothing comes before it",
                       shape_error);
  CHECK_THROWS_WITH_AS(
      predict({7, 8}, {0, 2}, {0}),
      "decoder::predict: predicted has 1 entries, expected one for each of 2 tokens", shape_error);
}

TEST_CASE("decoder::slice: the parts of a batch give the logits of the whole") {
  model_type model({}, decoder::testing::small_configs()[1].shape);
  decoder::testing::randomize(model, 1);
  token_batch const whole = decoder::testing::random_batch(model.shape(), {4, 7, 2, 5}, 6);
  auto const all = decoder::testing::copy_of(model.forward(whole));
  std::size_t row = 0;
  for (index_t first = 0; first < 4; first += 2) {
    token_batch const part = slice(whole, first, first + 2);
    CHECK(part.offsets.front() == 0);
    for (float const logit : decoder::testing::copy_of(model.forward(part))) {
      CHECK(logit == doctest::Approx(all[row++]).epsilon(1e-5));
    }
  }
  CHECK(row == all.size());
}
