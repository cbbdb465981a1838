// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Published models against Hugging Face: directories and GGUF files give its logits and gradients.
#include <doctest/doctest.h>

#include <cmath>

#include "examples/decoder/cached_forward.hpp"
#include "examples/decoder/pretrained.hpp"
#include "lamina/backend/eigen.hpp"
#include "tests/support/temporary_directory.hpp"

using namespace decoder;

namespace {

using in_double = lamina::eigen_backend<double>;
using in_float = lamina::eigen_backend<float>;

std::string const checkpoints = LAMINA_TEST_REFERENCE_DIR "/checkpoints/";

template <class Backend>
constexpr double tolerance = std::is_same_v<Backend, in_double> ? 1e-12 : 1e-4;

/// The sequences of checkpoints/make.py, every logit wanted.
token_batch reference_batch() {
  token_batch batch{{}, {0}, {}};
  for (index_t const length : {24, 1, 7}) {
    for (index_t i = 0; i < length; ++i) {
      index_t const n = batch.token_count();
      batch.logit_rows.push_back(n);
      batch.tokens.push_back(static_cast<std::int32_t>((n * n + 3 * n) % 16));
    }
    batch.offsets.push_back(batch.token_count());
  }
  return batch;
}

/// The largest difference, in units of the largest expected value.
template <class T>
double relative_error(vector_view<T> values, lamina::safetensors_file const& file,
                      std::string const& name) {
  std::vector<double> expected(static_cast<std::size_t>(values.size));
  file.read(name, vector_view<double>(expected));
  double worst = 0, largest = 0;
  for (index_t i = 0; i < values.size; ++i) {
    double const e = expected[static_cast<std::size_t>(i)];
    worst = std::max(worst, std::abs(static_cast<double>(values[i]) - e));
    largest = std::max(largest, std::abs(e));
  }
  return worst / largest;
}

constexpr char const* directories[] = {"llama", "llama_llama3_tied_bf16",
                                       "llama_linear_f16_sharded", "qwen2_tied_sharded",
                                       "qwen3_yarn"};

}  // namespace

TEST_CASE_TEMPLATE("pretrained: directories give the logits and all gradients of Hugging Face",
                   Backend, in_double, in_float) {
  for (std::string const name : directories) {
    CAPTURE(name);
    pretrained const source(checkpoints + name);
    auto model = load_pretrained(Backend{}, source);
    lamina::safetensors_file const expected(checkpoints + name + "/expected.safetensors");
    auto const plan = lamina::plan_full(model.layer_count());
    auto const logits = model.forward(reference_batch(), plan);
    CHECK(relative_error(flat(logits), expected, "logits") < tolerance<Backend>);
    for (index_t n = 0; n < logits.rows * logits.cols; ++n) {
      logits.data[n] =
          static_cast<typename Backend::scalar_type>(std::sin(0.9 * static_cast<double>(n) + 0.2));
    }
    model.backward(logits, plan);
    std::size_t gradient_count = 0;
    for (auto const& parameter : lamina::all_parameters(model)) {
      std::string const tensor = "gradient." + std::string(parameter.name);
      CAPTURE(tensor);
      CHECK(relative_error(parameter.gradient, expected, tensor) < tolerance<Backend>);
      ++gradient_count;
    }
    CHECK(gradient_count + 1 == expected.tensors().size());
  }
}

TEST_CASE_TEMPLATE("pretrained: GGUF files of every type give the logits of Hugging Face", Backend,
                   in_double, in_float) {
  lamina::safetensors_file const expected(checkpoints + "gguf_expected.safetensors");
  REQUIRE(expected.tensors().size() == 8);
  for (auto const& tensor : expected.tensors()) {
    CAPTURE(tensor.name);
    pretrained const source(checkpoints + tensor.name + ".gguf");
    auto model = load_pretrained(Backend{}, source);
    auto const logits = model.forward(reference_batch());
    CHECK(relative_error(flat(logits), expected, tensor.name) < tolerance<Backend>);
  }
}

TEST_CASE("pretrained: sampling's cached forward stretches the rotation alike") {
  for (std::string const name : directories) {
    CAPTURE(name);
    pretrained const source(checkpoints + name);
    auto const model = load_pretrained(in_double{}, source);
    lamina::safetensors_file const expected(checkpoints + name + "/expected.safetensors");
    std::vector<double> reference(32 * 16);
    expected.read("logits", vector_view<double>(reference));
    auto const tokens = reference_batch().tokens;
    cached_forward<in_double> cached(model.backend());
    cached.reset(model, 1, 24);
    std::vector<index_t> const row{0}, wanted{0};
    for (std::size_t p = 0; p < 24; ++p) {
      std::vector<index_t> const position{static_cast<index_t>(p)};
      auto const logits = cached.run(model, {tokens.data() + p, 1}, {row, position}, wanted);
      for (std::size_t v = 0; v < 16; ++v) {
        CHECK(std::abs(logits.data[v] - reference[16 * p + v]) < 1e-11);
      }
    }
  }
}

TEST_CASE("docs/checkpoints.md: opening and loading a model") {
  std::string const path = checkpoints + "llama_q4_1.gguf";
  token_batch const batch = reference_batch();
  // [open]
  decoder::pretrained const source(path);         // a directory, or a .gguf file
  decoder::config const& shape = source.shape();  // layers, width, vocabulary, rotation ...
  auto model = decoder::load_pretrained(lamina::eigen_backend<float>{}, source);
  auto const logits = model.forward(batch);
  // [/open]
  CHECK(logits.cols == shape.vocab);
}

TEST_CASE("pretrained: the identity changes with a weight or the shape and with nothing else") {
  std::string const whole = pretrained(checkpoints + "llama").identity();
  CHECK(whole == pretrained(checkpoints + "llama").identity());
  CHECK(whole.starts_with("llama, 21 tensors, 5024 bytes, fnv1a "));
  lamina::testing::temporary_directory const directory;
  lamina::ensure_directory(directory / "llama");
  std::string weights = lamina::read_file(checkpoints + "llama/model.safetensors");
  lamina::write_file_atomically(directory / "llama/config.json",
                                lamina::read_file(checkpoints + "llama/config.json"));
  lamina::write_file_atomically(directory / "llama/model.safetensors", weights);
  CHECK(pretrained(directory / "llama").identity() == whole);
  weights.back() ^= 1;
  lamina::write_file_atomically(directory / "llama/model.safetensors", weights);
  CHECK(pretrained(directory / "llama").identity() != whole);
  std::string config_text = lamina::read_file(checkpoints + "llama/config.json");
  std::size_t const theta = config_text.find("\"rope_theta\": 100.0");
  REQUIRE(theta != std::string::npos);
  lamina::write_file_atomically(directory / "llama/config.json",
                                config_text.replace(theta, 19, "\"rope_theta\": 200.0"));
  weights.back() ^= 1;
  lamina::write_file_atomically(directory / "llama/model.safetensors", weights);
  CHECK(pretrained(directory / "llama").identity() != whole);
}

TEST_CASE("pretrained: a model of another shape is refused") {
  pretrained const source(checkpoints + "llama");
  config shape = source.shape();
  shape.rope.kind = rope_kind::linear;
  transformer<in_float> model({}, shape);
  CHECK_THROWS_AS(source.load(model), lamina::config_error);
}
