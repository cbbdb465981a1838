// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/grpo_run.hpp"

#include <doctest/doctest.h>

#include "examples/layer_sweep/score.hpp"
#include "examples/toy_task.hpp"
#include "lamina/backend/eigen.hpp"
#include "lamina/optim/audit.hpp"

using namespace layer_sweep;
using layer_sweep::testing::toy_task;

namespace {

using backend = lamina::eigen_backend<float>;
using model_type = decoder::transformer<backend>;

settings small() {
  settings s;
  s.layers = 2;
  s.steps = 25;
  s.learning_rate = 3e-3;
  s.layer_learning_rate = 3e-3;
  return s;
}

model_type new_model() {
  model_type model(backend{}, {.layer_count = 2, .vocab = 4});
  model.initialize(1);
  return model;
}

double exact(model_type& model) {
  return exact_score(toy_task{}, toy_task::evaluation_prompts())(model).value;
}

// All weights of a new model after one row of the table.
std::vector<float> trained(settings const& s, training const& row, std::uint64_t seed) {
  auto model = new_model();
  train(toy_task{}, model, s, row, seed);
  std::vector<float> weights;
  for (auto const& parameter : lamina::all_parameters(model)) {
    weights.insert(weights.end(), parameter.weight.begin(), parameter.weight.end());
  }
  return weights;
}

}  // namespace

TEST_CASE("grpo_run: training learns the task, with both algorithms") {
  for (char const* algorithm : {"grpo", "dr_grpo"}) {
    settings s = small();
    s.algorithm = algorithm;
    s.steps = 40;
    auto model = new_model();
    double const before = exact(model);
    train(toy_task{}, model, s, variant_list(s).row("full"), 1);
    CHECK(before < 0.3);
    CHECK(exact(model) > 0.8);
  }
}

TEST_CASE("grpo_run: a row moves what it selects and leaves the rest bit for bit") {
  settings const s = small();
  variant_list const rows(s);
  for (char const* name : {"full", "layer:0", "layer:1", "head only", "layers only"}) {
    auto model = new_model();
    lamina::weight_snapshot const before(lamina::all_parameters(model));
    train(toy_task{}, model, s, rows.row(name), 1);
    auto const report = lamina::audit(before, lamina::all_parameters(model), rows.row(name).plan);
    INFO(name);
    CHECK(report.passed());
    CHECK(report.count(lamina::movement::moved) > 0);
  }
}

TEST_CASE("grpo_run: a run is a function of its seed") {
  settings s = small();
  s.steps = 3;
  training const row = variant_list(s).row("full");
  auto const first = trained(s, row, 1);
  CHECK(first == trained(s, row, 1));
  CHECK(first != trained(s, row, 2));
}

TEST_CASE("grpo_run: the multiplier of a boost is the learning rate of its layers") {
  settings s = small();
  s.steps = 1;
  s.mini_batches = 1;
  // The first step of Adam moves a weight by the learning rate, whatever its gradient: twice the
  // rate is twice the step. Layers only, so that everything is multiplied.
  training row = variant_list(s).row("layers only");
  auto const start = new_model();
  std::vector<float> before;
  for (auto const& p : lamina::all_parameters(const_cast<model_type&>(start))) {
    before.insert(before.end(), p.weight.begin(), p.weight.end());
  }
  auto const once = trained(s, row, 1);
  row.rates = lamina::boost(lamina::all_layers(2), 2);
  auto const twice = trained(s, row, 1);
  for (std::size_t i = 0; i < before.size(); ++i) {
    double const step = static_cast<double>(once[i]) - static_cast<double>(before[i]);
    double const boosted = static_cast<double>(twice[i]) - static_cast<double>(before[i]);
    REQUIRE(boosted == doctest::Approx(2 * step).epsilon(1e-3));
  }
}

TEST_CASE("grpo_run: shuffled rewards teach nothing") {
  settings s = small();
  training row = variant_list(s).row("layer:1");
  row.shuffled = true;
  auto model = new_model();
  double const before = exact(model);
  train(toy_task{}, model, s, row, 1);
  CHECK(exact(model) < before + 0.1);
}

TEST_CASE("grpo_run: equal rewards move nothing") {
  settings s = small();
  s.steps = 2;
  s.group_size = 2;
  s.prompts = 1;
  s.mini_batches = 1;
  // One group of two: a seed whose two rollouts are both wrong in both steps leaves every weight.
  auto const untouched = [&] {
    auto model = new_model();
    std::vector<float> weights;
    for (auto const& p : lamina::all_parameters(model)) {
      weights.insert(weights.end(), p.weight.begin(), p.weight.end());
    }
    return weights;
  }();
  training const row = variant_list(s).row("full");
  int unmoved = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) unmoved += trained(s, row, seed) == untouched;
  // Both wrong twice: about (15/16)^4 = 77 % of the seeds.
  CHECK(unmoved > 5);
  CHECK(unmoved < 20);
}
