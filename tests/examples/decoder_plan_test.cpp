// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The decoder does what a plan asks and nothing else: bits, memory and work.
#include <doctest/doctest.h>

#include <map>

#include "lamina/backend/eigen.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/optim/audit.hpp"
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/threaded_lanes.hpp"
#include "tests/support/typed_backends.hpp"

using namespace decoder;
using namespace decoder::testing;
using lamina::backward_plan;
using lamina::layer_set;
using lamina::plan_backward;
using lamina::plan_full;
using tensor_role = lamina::parameter_role;

namespace {

using backend_type = lamina::eigen_backend<float>;
using model_type = transformer<backend_type>;
using gradient_map = std::map<std::string, std::vector<float>>;

config everything() { return small_configs()[4].shape; }
config untied() {
  config shape = everything();
  shape.tied_head = false;
  return shape;
}

template <class Model>
void train(Model& model, token_batch const& batch, backward_plan const& plan) {
  using T = typename Model::scalar_type;
  auto const d_logits = random_coefficients<T>(
      static_cast<index_t>(batch.logit_rows.size()) * model.shape().vocab, 5);
  model.forward(batch, plan);
  model.backward(as_matrix(d_logits, model.shape().vocab), plan);
}

template <class Backend = backend_type>
auto trained_model(config const& shape, backward_plan const& plan, Backend backend = {}) {
  transformer<Backend> model(backend, shape);
  randomize(model, 11);
  train(model, random_batch(shape, {5, 1, 9, 4}, 3), plan);
  return model;
}

template <class Model>
auto gradients_of(Model& model) {
  std::map<std::string, std::vector<typename Model::scalar_type>> result;
  for (auto const& parameter : lamina::all_parameters(model)) {
    result[std::string(parameter.name)] = copy_of(parameter.gradient);
  }
  return result;
}

std::vector<backward_plan> many_plans(config const& shape) {
  index_t const count = shape.layer_count;
  layer_set const outer = layer_set{}.insert(0).insert(count - 1);
  std::vector<backward_plan> plans;
  for (index_t layer = 0; layer < count; ++layer) {
    layer_set const one = layer_set{}.insert(layer);
    plans.push_back(plan_backward(count, one));
    plans.push_back(plan_backward(count, one, {.trained_roles = lamina::mlp_roles}));
    plans.push_back(plan_backward(count, one, {.trained_roles = lamina::attention_roles}));
    plans.push_back(plan_backward(count, one, {.final_norm = true}));
  }
  for (tensor_role const r :
       {tensor_role::attention_norm, tensor_role::attention_query, tensor_role::attention_key,
        tensor_role::attention_value, tensor_role::attention_output, tensor_role::query_norm,
        tensor_role::key_norm, tensor_role::mlp_norm, tensor_role::mlp_gate, tensor_role::mlp_up,
        tensor_role::mlp_down}) {
    plans.push_back(plan_backward(count, outer, {.trained_roles = lamina::roles(r)}));
  }
  plans.push_back(plan_backward(count, {}, {.final_norm = true}));
  plans.push_back(plan_backward(count, {}, {.embeddings = true}));
  plans.push_back(plan_backward(count, outer, {.embeddings = true, .final_norm = true}));
  if (!shape.tied_head) {
    plans.push_back(plan_backward(count, {}, {.head = true}));
    plans.push_back(plan_backward(count, outer, {.head = true}));
  }
  return plans;
}

/// Eigen's product with a count of its floating-point operations.
struct counting_gemm {
  double* flops = nullptr;
  template <lamina::real T>
  void operator()(lamina::gemm_arguments<T> const& g) const {
    *flops += 2.0 * static_cast<double>(g.rows) * static_cast<double>(g.cols) *
              static_cast<double>(g.depth);
    lamina::eigen_gemm{}(g);
  }
};
using counting_backend = lamina::eigen_backend<float, lamina::serial_for, counting_gemm>;

}  // namespace

TEST_CASE("decoder: a planned gradient has the bits of the full plan's, all others do not exist") {
  for (config const& shape : {everything(), untied()}) {
    auto full_model = trained_model(shape, plan_full(shape.layer_count));
    gradient_map const full = gradients_of(full_model);
    for (backward_plan const& plan : many_plans(shape)) {
      auto model = trained_model(shape, plan);
      gradient_map const some = gradients_of(model);
      for (auto const& parameter : lamina::all_parameters(model)) {
        std::string const name(parameter.name);
        CAPTURE(name);
        if (plan.weight_gradient(parameter.layer, parameter.role)) {
          CHECK(same_bits(some.at(name), full.at(name)));
        } else {
          CHECK(parameter.gradient.empty());
        }
      }
    }
  }
}

TEST_CASE("decoder: backward leaves gradients that the plan does not name as they were") {
  config const shape = everything();
  auto model = trained_model(shape, plan_full(shape.layer_count));
  gradient_map const full = gradients_of(model);
  for (backward_plan const& plan : many_plans(shape)) {
    for (auto const& parameter : lamina::all_parameters(model)) {
      for (float& g : parameter.gradient) g = 42;
    }
    train(model, random_batch(shape, {5, 1, 9, 4}, 3), plan);
    for (auto const& parameter : lamina::all_parameters(model)) {
      CAPTURE(parameter.name);
      bool const planned = plan.weight_gradient(parameter.layer, parameter.role);
      std::vector<float> const sentinels(static_cast<std::size_t>(parameter.gradient.size), 42);
      CHECK(same_bits(copy_of(parameter.gradient),
                      planned ? full.at(std::string(parameter.name)) : sentinels));
    }
  }
}

TEST_CASE("decoder: backward may be narrower than forward, and may be repeated") {
  config const shape = everything();
  auto model = trained_model(shape, plan_full(3));
  gradient_map const full = gradients_of(model);
  auto const batch = random_batch(shape, {5, 1, 9, 4}, 3);
  auto const d_logits =
      random_coefficients<float>(static_cast<index_t>(batch.logit_rows.size()) * shape.vocab, 5);
  model.backward(as_matrix(d_logits, shape.vocab), plan_backward(3, layer_set{}.insert(1)));
  CHECK(gradients_of(model) == full);
  model.backward(as_matrix(d_logits, shape.vocab), plan_full(3));
  CHECK(gradients_of(model) == full);
}

TEST_CASE("decoder: the caller may turn the logits into their gradient in place") {
  config const shape = untied();
  auto apart = trained_model(shape, plan_full(3));
  model_type model({}, shape);
  randomize(model, 11);
  auto const batch = random_batch(shape, {5, 1, 9, 4}, 3);
  auto const logits = model.forward(batch, plan_full(3));
  auto const d_logits = random_coefficients<float>(logits.rows * logits.cols, 5);
  std::copy(d_logits.begin(), d_logits.end(), logits.data);
  model.backward(logits, plan_full(3));
  CHECK(gradients_of(model) == gradients_of(apart));
}

TEST_CASE("decoder: activations are kept from the stop layer upwards") {
  config const shape = untied();
  for (index_t stop = 0; stop < 3; ++stop) {
    auto model = trained_model(shape, plan_backward(3, layer_set{}.insert(stop)));
    for (index_t layer = 0; layer < 3; ++layer) {
      CHECK((model.kept_activations(layer) > 0) == (layer >= stop));
    }
  }
  auto head_only = trained_model(shape, plan_backward(3, {}, {.head = true}));
  for (index_t layer = 0; layer < 3; ++layer) CHECK(head_only.kept_activations(layer) == 0);
}

TEST_CASE("decoder: the products of a backward pass are those of the plan") {
  config const shape = untied();
  auto const batch = random_batch(shape, {5, 1, 9, 4}, 3);
  double const n = static_cast<double>(batch.token_count());
  double const rows = static_cast<double>(batch.logit_rows.size());
  double const d = 8, q = 16, k = 4, f = 12, v = 11;
  double flops = 0;
  transformer<counting_backend> model({{}, {&flops}}, shape);
  randomize(model, 11);
  auto const d_logits =
      random_coefficients<float>(static_cast<index_t>(batch.logit_rows.size()) * shape.vocab, 5);
  auto const cost = [&](layer_set const& layers, lamina::plan_options options) {
    backward_plan const plan = plan_backward(3, layers, options);
    model.forward(batch, plan);
    flops = 0;
    model.backward(as_matrix(d_logits, shape.vocab), plan);
    return flops;
  };
  layer_set const last = layer_set{}.insert(2);
  double const head = 2 * rows * d * v, output = 2 * n * d * q, qkv = 2 * n * d * (q + 2 * k);
  double const down = 2 * n * f * d, gate_up = 2 * n * d * 2 * f;

  CHECK(cost({}, {.head = true}) == head);
  CHECK(cost({}, {.final_norm = true}) == head);
  CHECK(cost(last, {.trained_roles = lamina::roles(tensor_role::mlp_down)}) == head + down);
  CHECK(cost(last, {.trained_roles = lamina::roles(tensor_role::mlp_up)}) ==
        head + down + gate_up / 2);
  CHECK(cost(last, {.trained_roles = lamina::mlp_roles}) == head + 2 * down + 2 * gate_up);
  CHECK(cost(last, {.trained_roles = lamina::roles(tensor_role::attention_output)}) ==
        head + down + gate_up + output);
  CHECK(cost(last, {.trained_roles = lamina::roles(tensor_role::attention_value)}) ==
        head + down + gate_up + output + 2 * n * d * k);
  // The stop layer's own input gradient is needed by its norm, and by nothing else.
  double const layer_dx = down + gate_up + output + qkv, layer_dw = layer_dx;
  CHECK(cost(last, {}) == head + layer_dx + layer_dw);
  CHECK(cost(last, {.trained_roles = lamina::layer_roles - lamina::norm_roles}) ==
        head + layer_dx - qkv + layer_dw);
  CHECK(cost(layer_set{}.insert(0), {}) == head + 3 * layer_dx + layer_dw);
  CHECK(cost(last, {.embeddings = true, .head = true}) == 2 * head + 3 * layer_dx + layer_dw);
}

TEST_CASE("decoder: an optimizer step of a plan leaves every other weight's bits alone") {
  config const shape = everything();
  auto const plan = plan_backward(3, layer_set{}.insert(1), {.trained_roles = lamina::mlp_roles});
  model_type model({}, shape);
  randomize(model, 11);
  model.prepare(plan);
  lamina::adamw optimizer(model.backend(), lamina::trained_parameters(model, plan));
  std::map<std::string, std::vector<float>> before;
  for (auto const& p : lamina::all_parameters(model)) {
    before[std::string(p.name)] = copy_of(p.weight);
  }
  train(model, random_batch(shape, {5, 1, 9, 4}, 3), plan);
  optimizer.step();
  for (auto const& p : lamina::all_parameters(model)) {
    CAPTURE(p.name);
    bool const trained = p.layer == 1 && lamina::mlp_roles.contains(p.role);
    CHECK(same_bits(copy_of(p.weight), before[std::string(p.name)]) == !trained);
  }
}

TEST_CASE("decoder: the audit names tensors that were selected and did not move") {
  config const shape = everything();
  auto const plan = plan_backward(3, layer_set{}.insert(1));
  model_type model({}, shape);
  randomize(model, 11);
  model.prepare(plan);
  lamina::adamw optimizer(model.backend(), lamina::trained_parameters(model, plan));
  lamina::weight_snapshot const before(lamina::all_parameters(model));
  train(model, random_batch(shape, {5, 1, 9, 4}, 3), plan);
  optimizer.step(0);
  auto const still = lamina::audit(before, lamina::all_parameters(model), plan);
  CHECK_FALSE(still.passed());
  for (auto const& tensor : still.tensors) {
    CHECK(tensor.verdict ==
          (tensor.layer == 1 ? lamina::movement::selected_unmoved : lamina::movement::frozen));
  }
  optimizer.step(1e-3);
  CHECK(lamina::audit(before, lamina::all_parameters(model), plan).passed());
}

TEST_CASE("decoder: gradients of a selection left behind are freed, those of the next are there") {
  config const shape = everything();
  auto const first = plan_backward(3, layer_set{}.insert(1)),
             second = plan_backward(3, layer_set{}.insert(2));
  auto model = trained_model(shape, first);
  train(model, random_batch(shape, {5, 1, 9, 4}, 3), second);
  gradient_map const both = gradients_of(model);
  model.release(second);
  for (auto const& p : lamina::all_parameters(model)) {
    CAPTURE(p.name);
    CHECK(p.gradient.empty() == (p.layer != 2));
    if (p.layer == 2) CHECK(same_bits(copy_of(p.gradient), both.at(std::string(p.name))));
  }
}

TEST_CASE("decoder: seven threads give the bits of one") {
  using threads = lamina::testing::spawning_for;
  config const shape = everything();
  auto one = trained_model(shape, plan_full(3));
  auto seven =
      trained_model(shape, plan_full(3), lamina::eigen_backend<float, threads>{threads{7}, {}});
  CHECK(gradients_of(one) == gradients_of(seven));
}

TEST_CASE("decoder: seven cooperating lanes a row agree with one") {
  config shape = everything();
  shape.layer_count = 1;
  auto one = trained_model(shape, plan_full(1), lamina::eigen_backend<double>{});
  auto seven = trained_model(shape, plan_full(1), lamina::testing::threaded_backend<double, 7>{});
  auto const expected = gradients_of(one);
  for (auto const& entry : gradients_of(seven)) {
    CAPTURE(entry.first);
    auto const& gradient = entry.second;
    auto const& wanted = expected.at(entry.first);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      CHECK(gradient[i] == doctest::Approx(wanted[i]).epsilon(1e-10));
    }
  }
}

TEST_CASE_TEMPLATE("decoder: every backend agrees with Eigen in double", Backend,
                   LAMINA_TEST_BACKENDS) {
  config const shape = untied();
  auto reference = trained_model(shape, plan_full(3), lamina::eigen_backend<double>{});
  auto model = trained_model(shape, plan_full(3), Backend{});
  auto const expected = gradients_of(reference);
  double const allowed = sizeof(typename Backend::scalar_type) == 4 ? 2e-5 : 1e-12;
  for (auto const& entry : gradients_of(model)) {
    CAPTURE(entry.first);
    auto const& gradient = entry.second;
    auto const& wanted = expected.at(entry.first);
    double largest = 0;
    for (double const g : wanted) largest = std::max(largest, std::abs(g));
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      CHECK(std::abs(static_cast<double>(gradient[i]) - wanted[i]) <= allowed * (1 + largest));
    }
  }
}

TEST_CASE("decoder: permuting the sequences permutes the logits") {
  config const shape = untied();
  transformer<lamina::testing::minimal_backend<double>> model({}, shape);
  randomize(model, 2);
  token_batch const batch = random_batch(shape, {4, 4, 4}, 8);
  token_batch swapped = batch;
  std::rotate(swapped.tokens.begin(), swapped.tokens.begin() + 4, swapped.tokens.end());
  auto const first = copy_of(model.forward(batch));
  auto const second = copy_of(model.forward(swapped));
  std::size_t const third = first.size() / 3;
  for (std::size_t i = 0; i < first.size(); ++i) {
    CHECK(second[i] == first[(i + third) % first.size()]);
  }
}

TEST_CASE("decoder: parameters are listed under the names of Hugging Face") {
  config const shape = everything();
  model_type model({}, shape);
  CHECK(lamina::all_parameters(model).size() == 2 + 3 * 14);
  CHECK(model.outer_parameters()[0].name == "model.embed_tokens.weight");
  CHECK(model.outer_parameters()[1].name == "model.norm.weight");
  CHECK_FALSE(model.outer_parameters()[1].decays);
  auto const query = model.parameters(2)[1];
  CHECK(query.name == "model.layers.2.self_attn.q_proj.weight");
  CHECK(query.layer == 2);
  CHECK(query.role == tensor_role::attention_query);
  CHECK(query.decays);
  CHECK(query.weight.size == 16 * 8);
  CHECK(query.gradient.empty());
  auto const bias = model.parameters(0)[4];
  CHECK(bias.name == "model.layers.0.self_attn.q_proj.bias");
  CHECK(bias.role == tensor_role::attention_query);
  CHECK_FALSE(bias.decays);
  model_type plain({}, config{});
  CHECK(lamina::all_parameters(plain).size() == 3 + 8 * 9);
  CHECK(plain.outer_parameters()[2].name == "lm_head.weight");
}

TEST_CASE("decoder: initialize depends on the seed, and gives the spread of the recipe") {
  config const shape{
      .layer_count = 2, .width = 64, .head_width = 32, .ffn_width = 128, .vocab = 100};
  model_type a({}, shape), b({}, shape), c({}, shape);
  a.initialize(1);
  b.initialize(1);
  c.initialize(2);
  auto const spread = [](lamina::vector_view<float> w) {
    double sum = 0;
    for (float const x : w) sum += static_cast<double>(x) * static_cast<double>(x);
    return std::sqrt(sum / static_cast<double>(w.size));
  };
  auto const pa = lamina::all_parameters(a), pb = lamina::all_parameters(b),
             pc = lamina::all_parameters(c);
  for (std::size_t i = 0; i < pa.size(); ++i) {
    CAPTURE(pa[i].name);
    CHECK(same_bits(pa[i].weight, pb[i].weight));
    CHECK(same_bits(pa[i].weight, pc[i].weight) == !pa[i].decays);
    double const expected = pa[i].role == tensor_role::embedding          ? 0.5
                            : pa[i].role == tensor_role::head             ? 0.3 / 8
                            : pa[i].role == tensor_role::attention_output ? 1 / 8.0 / 2
                            : pa[i].role == tensor_role::mlp_down         ? 1 / std::sqrt(128.0) / 2
                            : pa[i].decays                                ? 1 / 8.0
                                                                          : 1;
    CHECK(spread(pa[i].weight) == doctest::Approx(expected).epsilon(0.05));
  }
}

TEST_CASE("decoder: copy_weights copies values, and moving a model keeps its views") {
  config const shape = everything();
  model_type a({}, shape);
  randomize(a, 3);
  model_type b({}, shape);
  b.copy_weights(a);
  auto const weight = a.parameters(1)[1];
  model_type moved(std::move(a));
  CHECK(moved.parameters(1)[1].weight.data == weight.weight.data);
  CHECK(moved.parameters(1)[1].name == "model.layers.1.self_attn.q_proj.weight");
  auto const batch = random_batch(shape, {6, 2}, 1);
  CHECK(same_bits(copy_of(moved.forward(batch)), copy_of(b.forward(batch))));
  model_type other({}, untied());
  CHECK_THROWS_WITH_AS(other.copy_weights(b), "decoder::copy_weights: the models differ in shape",
                       lamina::config_error);
}

TEST_CASE("decoder: plans that do not fit are refused") {
  config const shape = everything();
  model_type model({}, shape);
  auto const batch = random_batch(shape, {5}, 3);
  std::vector<float> const d_logits(batch.logit_rows.size() * 11);
  CHECK_THROWS_WITH_AS(model.backward(as_matrix(d_logits, 11), plan_full(3)),
                       "decoder::backward: no forward pass came before", lamina::shape_error);
  CHECK_THROWS_WITH_AS(model.forward(batch, plan_full(4)),
                       "decoder::prepare: the plan is for 4 layers, the model has 3",
                       lamina::config_error);
  CHECK_THROWS_WITH_AS(model.prepare(plan_backward(3, {}, {.head = true})),
                       "decoder::prepare: the plan trains the head without the embeddings, but the "
                       "head is tied to them; train embeddings instead",
                       lamina::config_error);
  model.forward(batch, plan_backward(3, layer_set{}.insert(2)));
  CHECK_THROWS_WITH_AS(
      model.backward(as_matrix(d_logits, 11), plan_backward(3, layer_set{}.insert(1))),
      "decoder::backward: the plan stops at layer 1, the forward pass kept activations from layer "
      "2 on",
      lamina::config_error);
  // A layer that is passed through keeps no inputs for its matrices.
  model.forward(batch, plan_backward(3, layer_set{}.insert(1)));
  CHECK_THROWS_WITH_AS(
      model.backward(as_matrix(d_logits, 11), plan_backward(3, layer_set{}.insert(2))),
      "decoder::backward: the plan trains tensors of layer 2 that the plan of the forward pass did "
      "not: it kept no activations for them",
      lamina::config_error);
  CHECK_THROWS_WITH_AS(
      model.backward(as_matrix(d_logits, 10), plan_backward(3, layer_set{}.insert(2))),
      "decoder::backward: d_logits is 3 x 10, the logits are 3 x 11", lamina::shape_error);
  CHECK_THROWS_WITH_AS(model.parameters(3), "decoder::parameters: layer is 3, expected 0..2",
                       lamina::shape_error);
}
