// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The decoder against the Llama, Qwen2 and Qwen3 models of Hugging Face transformers.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "examples/decoder/cached_forward.hpp"
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/reference_file.hpp"
#include "tests/support/typed_backends.hpp"

using namespace decoder;
using namespace decoder::testing;

namespace {

config shape_of(std::string const& name) {
  config shape{.layer_count = 2,
               .width = 8,
               .head_count = 4,
               .kv_head_count = 2,
               .head_width = 4,
               .ffn_width = 10,
               .vocab = 9,
               .rope_theta = 500,
               .norm_epsilon = 1e-5};
  shape.qkv_bias = name == "qwen2";
  shape.qk_norm = name == "qwen3";
  shape.tied_head = name == "qwen3";
  return shape;
}

/// Fills the weights by the formula of decoder_vectors.py, in the order of its file.
template <class Backend>
void fill(transformer<Backend>& model, nlohmann::json const& gradients) {
  std::map<std::string, lamina::vector_view<double>> weights;
  for (auto const& parameter : lamina::all_parameters(model)) {
    weights[std::string(parameter.name)] = parameter.weight;
  }
  REQUIRE(gradients.size() == weights.size());
  double t = 0;
  for (auto const& gradient : gradients) {
    std::string const name = gradient["name"];
    CAPTURE(name);
    REQUIRE(weights.count(name) == 1);
    REQUIRE(gradient["values"].size() == static_cast<std::size_t>(weights[name].size));
    double const base = name.find("norm") != std::string::npos ? 1 : 0;
    for (index_t i = 0; i < weights[name].size; ++i) {
      weights[name][i] = base + 0.4 * std::sin(1.3 * static_cast<double>(i + 1) + 0.7 * t);
    }
    ++t;
  }
}

void check_close(double value, double expected) {
  CHECK(std::abs(value - expected) <= 1e-11 * (1 + std::abs(expected)));
}

}  // namespace

TEST_CASE_TEMPLATE(
    "decoder: logits and gradients of Llama, Qwen2 and Qwen3 are those of Hugging Face", Backend,
    LAMINA_TEST_BACKENDS_IN_DOUBLE) {
  auto const document = lamina::testing::read_reference("decoder_vectors.json");
  token_batch batch;
  batch.offsets.push_back(0);
  for (auto const& sequence : document["sequences"]) {
    for (std::int32_t const token : sequence) {
      batch.logit_rows.push_back(batch.token_count());
      batch.tokens.push_back(token);
    }
    batch.offsets.push_back(batch.token_count());
  }
  REQUIRE(document["models"].size() == 3);
  for (auto const& reference : document["models"]) {
    std::string const name = reference["name"];
    CAPTURE(name);
    transformer<Backend> model({}, shape_of(name));
    fill(model, reference["gradients"]);

    auto const plan = lamina::plan_full(2);
    auto const logits = model.forward(batch, plan);
    REQUIRE(reference["logits"].size() == static_cast<std::size_t>(logits.rows * logits.cols));
    std::vector<double> coefficients;
    for (std::size_t n = 0; n < reference["logits"].size(); ++n) {
      check_close(logits.data[n], reference["logits"][n]);
      coefficients.push_back(std::sin(0.9 * static_cast<double>(n) + 0.2));
    }
    model.backward(as_matrix(coefficients, 9), plan);

    std::map<std::string, lamina::vector_view<double>> gradients;
    for (auto const& parameter : lamina::all_parameters(model)) {
      gradients[std::string(parameter.name)] = parameter.gradient;
    }
    for (auto const& gradient : reference["gradients"]) {
      std::string const tensor = gradient["name"];
      CAPTURE(tensor);
      for (index_t i = 0; i < gradients[tensor].size; ++i) {
        check_close(gradients[tensor][i], gradient["values"][static_cast<std::size_t>(i)]);
      }
    }
  }
}

TEST_CASE_TEMPLATE("decoder: the cached forward pass of sampling gives the logits of Hugging Face",
                   Backend, LAMINA_TEST_BACKENDS_IN_DOUBLE) {
  auto const document = lamina::testing::read_reference("decoder_vectors.json");
  for (auto const& reference : document["models"]) {
    std::string const name = reference["name"];
    CAPTURE(name);
    transformer<Backend> model({}, shape_of(name));
    fill(model, reference["gradients"]);
    std::vector<std::int32_t> const tokens = document["sequences"][0];
    cached_forward<Backend> cached(model.backend());
    cached.reset(model, 2, static_cast<index_t>(tokens.size()));
    // Five tokens at once into row 1, then one at a time.
    std::size_t seen = 0;
    for (std::size_t const count : {5u, 1u, 1u, 1u, 1u, 1u, 1u, 1u}) {
      std::vector<index_t> const rows(count, 1);
      std::vector<index_t> positions, wanted;
      for (std::size_t i = 0; i < count; ++i) {
        positions.push_back(static_cast<index_t>(seen + i));
        wanted.push_back(static_cast<index_t>(i));
      }
      auto const logits = cached.run(model, {tokens.data() + seen, static_cast<index_t>(count)},
                                     {rows, positions}, wanted);
      for (index_t n = 0; n < logits.rows * 9; ++n) {
        check_close(logits.data[n], reference["logits"][seen * 9 + static_cast<std::size_t>(n)]);
      }
      seen += count;
    }
    CHECK(seen == tokens.size());
  }
}
