// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Supervised training: the loss and its gradient, and bits that do not depend on threads.
#include "examples/decoder/pretraining.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "lamina/backend/eigen.hpp"
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/threaded_lanes.hpp"

using namespace decoder;
using namespace decoder::testing;

namespace {

template <class T>
using backend_of = lamina::eigen_backend<T>;

config small() { return small_configs()[1].shape; }

template <class T = float>
transformer<backend_of<T>> random_model() {
  transformer<backend_of<T>> model({}, small());
  randomize(model, 21);
  return model;
}

/// Sequences that count up from a random token; everything after the second token is a target,
/// except in the last sequence, which has none.
supervised_batch counting_batch(index_t sequences, std::uint64_t seed) {
  lamina::counter_generator draws(seed);
  supervised_batch batch;
  batch.offsets.push_back(0);
  for (index_t s = 0; s < sequences; ++s) {
    std::uint32_t const first = draws.below(11), length = 3 + draws.below(4);
    for (std::uint32_t t = 0; t < length; ++t) {
      batch.tokens.push_back(static_cast<std::int32_t>((first + t) % 11));
      batch.targets.push_back(t >= 2 && s + 1 < sequences ? 1 : 0);
    }
    batch.offsets.push_back(static_cast<index_t>(batch.tokens.size()));
  }
  return batch;
}

/// Mean of -log p over the targets, from the logits of one forward pass and no code of the trainer.
template <class Model>
double mean_loss(Model& model, supervised_batch const& batch) {
  std::vector<std::int32_t> targets;
  auto const logits = model.forward(predict(batch.tokens, batch.offsets, batch.targets, &targets));
  double sum = 0;
  for (index_t i = 0; i < logits.rows; ++i) {
    double total = 0;
    for (double const x : logits.row(i)) total += std::exp(x);
    sum += std::log(total) - static_cast<double>(logits(i, targets[static_cast<std::size_t>(i)]));
  }
  return sum / static_cast<double>(logits.rows);
}

template <class Model>
std::vector<std::vector<typename Model::scalar_type>> weights_of(Model& model) {
  std::vector<std::vector<typename Model::scalar_type>> result;
  for (auto const& parameter : lamina::all_parameters(model)) {
    result.push_back(copy_of(parameter.weight));
  }
  return result;
}

}  // namespace

TEST_CASE(
    "decoder::pretrainer: the loss is the mean over targets and the gradient its derivative") {
  auto model = random_model<double>();
  supervised_batch const batch = counting_batch(7, 3);
  double const loss = mean_loss(model, batch);
  std::vector<double> derivatives;
  auto const parameters = lamina::all_parameters(model);
  for (auto const& parameter : parameters) {
    double& weight = parameter.weight[parameter.weight.size / 2];
    double const before = weight, h = 1e-5;
    weight = before + h;
    double const above = mean_loss(model, batch);
    weight = before - h;
    derivatives.push_back((above - mean_loss(model, batch)) / (2 * h));
    weight = before;
  }
  pretrainer<backend_of<double>> trainer(model, {.shard_count = 3});
  auto const result = trainer.step(batch, 0.0);
  CHECK(result.loss == doctest::Approx(loss).epsilon(1e-12));
  auto const trained = lamina::all_parameters(model);
  for (std::size_t p = 0; p < trained.size(); ++p) {
    CAPTURE(trained[p].name);
    CHECK(trained[p].gradient[trained[p].gradient.size / 2] ==
          doctest::Approx(derivatives[p]).epsilon(1e-6));
  }
}

TEST_CASE("decoder::pretrainer: any number of threads gives the same bits") {
  auto const train = [](auto parallel) {
    auto model = random_model();
    pretrainer<backend_of<float>, decltype(parallel)> trainer(model, {.shard_count = 5}, parallel);
    double loss = 0;
    for (std::uint64_t step = 0; step < 4; ++step) {
      loss += trainer.step(counting_batch(9, step), 3e-3).loss;
    }
    return std::pair(weights_of(model), loss);
  };
  auto const one = train(lamina::serial_for{});
  CHECK(train(lamina::testing::spawning_for{2}) == one);
  CHECK(train(lamina::testing::spawning_for{7}) == one);
}

TEST_CASE("decoder::pretrainer: the number of shards changes rounding only") {
  auto const train = [](index_t shard_count) {
    auto model = random_model<double>();
    pretrainer<backend_of<double>> trainer(model, {.shard_count = shard_count});
    for (std::uint64_t step = 0; step < 3; ++step) trainer.step(counting_batch(4, step), 1e-3);
    return weights_of(model);
  };
  auto const one = train(1);
  for (index_t const shards : {3, 8}) {  // eight shards of four sequences: some have nothing to do
    auto const many = train(shards);
    for (std::size_t p = 0; p < one.size(); ++p) {
      for (std::size_t i = 0; i < one[p].size(); ++i) {
        CHECK(many[p][i] == doctest::Approx(one[p][i]).epsilon(1e-7));
      }
    }
  }
}

TEST_CASE("decoder::pretrainer: a model learns to count") {
  transformer<backend_of<float>> model({}, small());
  model.initialize(2);
  supervised_batch const held_out = counting_batch(30, 1000);
  double const before = mean_loss(model, held_out);
  pretrainer<backend_of<float>> trainer(model, {.shard_count = 2});
  for (std::uint64_t step = 0; step < 150; ++step) trainer.step(counting_batch(16, step), 5e-3);
  CHECK(before > 2.0);  // about log 11
  CHECK(mean_loss(model, held_out) < 0.2);
}

TEST_CASE("decoder::pretrainer: what makes no sense is refused and changes nothing") {
  auto model = random_model();
  auto const before = weights_of(model);
  CHECK_THROWS_WITH_AS((pretrainer<backend_of<float>>(model, {.shard_count = 0})),
                       "decoder::pretrainer: shard_count is 0, expected 1..1024",
                       lamina::config_error);
  CHECK_THROWS_WITH_AS((pretrainer<backend_of<float>>(model, {.beta2 = 1.0})),
                       "adamw: beta2 is 1, expected 0 <= beta2 < 1", lamina::config_error);
  pretrainer<backend_of<float>> trainer(model, {});
  supervised_batch const good = counting_batch(5, 1);
  auto const refuse = [&](auto const& change, char const* message) {
    supervised_batch bad = good;
    change(bad);
    CHECK_THROWS_WITH(trainer.step(bad, 1e-3), message);
  };
  refuse([](supervised_batch& b) { b.targets.assign(b.targets.size(), 0); },
         "decoder::pretrainer: no token of the batch is a target");
  refuse([](supervised_batch& b) { b.targets[0] = 1; },
         "decoder::predict: predicted[0] is set, but it is the first token of sequence 0: nothing "
         "comes before it");
  refuse([](supervised_batch& b) { b.tokens[2] = 11; },
         "decoder::pretrainer: tokens[2] is 11, expected 0..10");
  // A last target is no input of the model, and still has to be a token.
  refuse([](supervised_batch& b) { b.tokens[static_cast<std::size_t>(b.offsets[1]) - 1] = -2; },
         "decoder::pretrainer: tokens[5] is -2, expected 0..10");
  refuse([](supervised_batch& b) { b.offsets.back() += 1; },
         "decoder::pretrainer: offsets ends at 28, there are 27 tokens");
  CHECK_THROWS_WITH(trainer.step(good, -1.0),
                    "adamw: learning_rate is -1, expected finite and >= 0");
  CHECK(weights_of(model) == before);
}
