// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every gradient of the decoder against central differences, in double.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "lamina/backend/eigen.hpp"
#include "tests/examples/decoder_cases.hpp"

using namespace decoder;
using namespace decoder::testing;
using lamina::layer_set;
using lamina::plan_backward;

namespace {

using model_type = transformer<lamina::eigen_backend<double>>;

struct problem {
  config shape;
  token_batch batch;
  std::vector<double> coefficients;

  explicit problem(config const& s)
      : shape(s),
        batch(random_batch(s, {5, 1, 9}, 3)),
        coefficients(random_coefficients<double>(
            static_cast<index_t>(batch.logit_rows.size()) * s.vocab, 5)) {}

  model_type model() const {
    model_type m({}, shape);
    randomize(m, 11);
    return m;
  }
  double loss(model_type& m) const {
    auto const logits = m.forward(batch);
    double sum = 0;
    for (std::size_t i = 0; i < coefficients.size(); ++i) sum += coefficients[i] * logits.data[i];
    return sum;
  }
  void gradients(model_type& m, lamina::backward_plan const& plan) const {
    m.forward(batch, plan);
    m.backward(as_matrix(coefficients, shape.vocab), plan);
  }
};

/// Up to twenty elements of every tensor, spread over it, and the numerical derivative of each.
struct derivative {
  std::string name;
  index_t element;
  double value;
};

std::vector<derivative> central_differences(problem const& p) {
  std::vector<derivative> result;
  model_type m = p.model();
  for (auto const& parameter : lamina::all_parameters(m)) {
    index_t const stride = parameter.weight.size / 20 + 1;
    for (index_t i = stride / 2 % parameter.weight.size; i < parameter.weight.size; i += stride) {
      double const before = parameter.weight[i], h = 1e-4;
      auto const moved = [&](double by) {
        parameter.weight[i] = before + by;
        double const loss = p.loss(m);
        parameter.weight[i] = before;
        return loss;
      };
      // Five points, so that the error is of order h^4.
      double const near = moved(h) - moved(-h), far = moved(2 * h) - moved(-2 * h);
      result.push_back({std::string(parameter.name), i, (8 * near - far) / (12 * h)});
    }
  }
  return result;
}

/// Checks what the plan trains; returns how many derivatives were compared.
int compare(problem const& p, std::vector<derivative> const& expected,
            lamina::backward_plan const& plan) {
  model_type m = p.model();
  p.gradients(m, plan);
  std::map<std::string, lamina::vector_view<double>> gradients;
  for (auto const& parameter : lamina::trained_parameters(m, plan)) {
    gradients[std::string(parameter.name)] = parameter.gradient;
  }
  int compared = 0;
  for (derivative const& d : expected) {
    auto const found = gradients.find(d.name);
    if (found == gradients.end()) continue;
    CAPTURE(d.name);
    CAPTURE(d.element);
    CHECK(std::abs(found->second[d.element] - d.value) <= 2e-8 * (1 + std::abs(d.value)));
    ++compared;
  }
  return compared;
}

}  // namespace

TEST_CASE("decoder: gradients of the full plan and of every single layer are the derivatives") {
  for (named_config const& entry : small_configs()) {
    CAPTURE(entry.name);
    config const& shape = entry.shape;
    problem const p(shape);
    auto const expected = central_differences(p);
    CHECK(compare(p, expected, lamina::plan_full(shape.layer_count)) ==
          static_cast<int>(expected.size()));
    for (index_t layer = 0; layer < shape.layer_count; ++layer) {
      CAPTURE(layer);
      auto const plan = plan_backward(shape.layer_count, layer_set{}.insert(layer));
      CHECK(compare(p, expected, plan) > 100);
    }
  }
}

TEST_CASE("decoder: gradients of role plans, of the head and of the final norm alone") {
  config const shape = small_configs()[2].shape;
  problem const p(shape);
  auto const expected = central_differences(p);
  layer_set const two = layer_set{}.insert(0).insert(2);
  CHECK(compare(p, expected, plan_backward(3, two, {.trained_roles = lamina::mlp_roles})) > 30);
  CHECK(compare(p, expected, plan_backward(3, two, {.trained_roles = lamina::attention_roles})) >
        30);
  CHECK(compare(p, expected, plan_backward(3, two, {.trained_roles = lamina::norm_roles})) > 20);
  CHECK(compare(p, expected, plan_backward(3, {}, {.head = true})) > 5);
  CHECK(compare(p, expected, plan_backward(3, {}, {.final_norm = true})) > 3);
  CHECK(compare(p, expected, plan_backward(3, {}, {.embeddings = true})) > 5);
}

TEST_CASE("decoder: a sequence of 40 tokens, several blocks of scores") {
  config shape = small_configs()[1].shape;
  shape.layer_count = 1;
  problem p(shape);
  p.batch = random_batch(shape, {40, 17}, 2);
  p.coefficients =
      random_coefficients<double>(static_cast<index_t>(p.batch.logit_rows.size()) * shape.vocab, 5);
  auto const expected = central_differences(p);
  CHECK(compare(p, expected, lamina::plan_full(1)) == static_cast<int>(expected.size()));
}

TEST_CASE("decoder: the logits of a position do not depend on what follows it") {
  config const shape = small_configs()[4].shape;
  model_type m({}, shape);
  randomize(m, 4);
  token_batch batch = random_batch(shape, {12}, 9);
  batch.logit_rows = {3};
  auto const before = copy_of(m.forward(batch));
  for (std::size_t later = 4; later < 12; ++later) batch.tokens[later] = 0;
  CHECK(same_bits(copy_of(m.forward(batch)), before));
  batch.tokens[3] = batch.tokens[3] == 0 ? 1 : 0;
  CHECK_FALSE(same_bits(copy_of(m.forward(batch)), before));
}
