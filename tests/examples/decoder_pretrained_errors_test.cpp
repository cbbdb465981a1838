// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What is wrong with a published model is named when it is opened.
#include <doctest/doctest.h>

#include "examples/decoder/pretrained.hpp"
#include "tests/examples/gguf_builder.hpp"
#include "tests/support/temporary_directory.hpp"

using namespace decoder;

namespace {

std::string const checkpoints = LAMINA_TEST_REFERENCE_DIR "/checkpoints/";

std::string message_of(std::string const& path) {
  try {
    pretrained const model(path);
  } catch (lamina::format_error const& error) {
    std::string text = error.what();
    for (std::size_t at; (at = text.find(path)) != std::string::npos;) {
      text.replace(at, path.size(), "PATH");
    }
    return text;
  }
  return "";
}

}  // namespace

TEST_CASE("pretrained: tensors that are missing, extra, or of another type or shape are named") {
  lamina::testing::temporary_directory const directory;
  lamina::safetensors_file const original(checkpoints + "llama");
  auto const config_text = lamina::read_file(checkpoints + "llama/config.json");
  auto const with = [&](auto const& change, std::string const& text) {
    std::vector<lamina::raw_tensor> tensors = original.tensors();
    change(tensors);
    lamina::write_file_atomically(directory / "config.json", text);
    lamina::write_safetensors(directory / "model.safetensors", tensors);
    return message_of(directory.path());
  };
  auto const find = [](std::vector<lamina::raw_tensor>& tensors, std::string const& name) {
    return std::find_if(tensors.begin(), tensors.end(),
                        [&](auto const& tensor) { return tensor.name == name; });
  };
  CHECK(with([](auto&) {}, config_text) == "");
  CHECK(
      with([&](auto& t) { t.erase(find(t, "model.layers.1.mlp.up_proj.weight")); }, config_text) ==
      "decoder::pretrained: 'PATH' has no tensor 'model.layers.1.mlp.up_proj.weight', expected "
      "one of [12, 8]");
  CHECK(with(
            [&](auto& t) {
              t.push_back({"model.layers.2.x", lamina::dtype::f32, {0}, {}});
            },
            config_text) ==
        "decoder::pretrained: 'PATH' has tensor 'model.layers.2.x', which the model does not have");
  CHECK(with(
            [&](auto& t) {
              find(t, "lm_head.weight")->shape = {8, 16};
            },
            config_text) ==
        "decoder::pretrained: 'PATH' has tensor 'lm_head.weight' of shape [8, 16], expected [16, "
        "8]");
  CHECK(with(
            [&](auto& t) {
              find(t, "model.norm.weight")->shape = {1, 8};
            },
            config_text) ==
        "decoder::pretrained: 'PATH' has tensor 'model.norm.weight' of shape [1, 8], expected [8]");
  CHECK(with([&](auto& t) { find(t, "model.norm.weight")->type = lamina::dtype::i32; },
             config_text) ==
        "decoder::pretrained: 'PATH' has tensor 'model.norm.weight' of type I32, expected F32, F16 "
        "or BF16");

  SUBCASE("an extra head of a tied model must be the embedding") {
    std::string tied = config_text;
    tied.replace(tied.find("\"tie_word_embeddings\": false"), 28, "\"tie_word_embeddings\": true ");
    CHECK(with(
              [&](auto& t) {
                find(t, "lm_head.weight")->bytes = find(t, "model.embed_tokens.weight")->bytes;
              },
              tied) == "");
    CHECK(with([](auto&) {}, tied) ==
          "decoder::pretrained: 'PATH' has tensor 'lm_head.weight' other than the embedding, to "
          "which the model ties it");
  }
  SUBCASE("frequencies that old files carry are passed over") {
    CHECK(with(
              [&](auto& t) {
                t.push_back(
                    {"model.layers.0.self_attn.rotary_emb.inv_freq", lamina::dtype::f32, {0}, {}});
              },
              config_text) == "");
  }
  SUBCASE("a directory without its files is refused") {
    CHECK_THROWS_AS(pretrained(directory / "nowhere"), lamina::io_error);
    lamina::ensure_directory(directory / "empty");
    CHECK_THROWS_AS(pretrained(directory / "empty"), lamina::io_error);
    lamina::write_file_atomically(directory / "empty/config.json", config_text);
    CHECK_THROWS_AS(pretrained(directory / "empty"), lamina::io_error);
  }
}

namespace {

std::string message_of_gguf(testing::gguf_builder const& file) {
  std::string const bytes = file.file();
  try {
    pretrained::from_gguf(bytes, "FILE");
  } catch (lamina::format_error const& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("pretrained: GGUF models that the decoder cannot run are refused by key") {
  std::string const has = "decoder::gguf: 'FILE' has ";
  CHECK(message_of_gguf(testing::tiny_llama()) == "");
  testing::gguf_builder other;
  other.text("general.architecture", "gemma3");
  CHECK(message_of_gguf(other) ==
        has + "'general.architecture' = 'gemma3', expected llama, qwen2 or qwen3");
  CHECK(message_of_gguf({}) ==
        has.substr(0, has.size() - 4) + "has no 'general.architecture', expected a string");
  auto const with = [](auto const& change) {
    auto file = testing::tiny_llama();
    change(file);
    return message_of_gguf(file);
  };
  CHECK(with([](auto& f) { f.integer("llama.expert_count", 8); }) ==
        has + "'llama.expert_count' = 8, expected 0");
  CHECK(with([](auto& f) { f.integer("llama.attention.sliding_window", 4096); }) ==
        has + "'llama.attention.sliding_window' = 4096, expected 0");
  CHECK(with([](auto& f) { f.integer("llama.rope.dimension_count", 1); }) ==
        has + "'llama.rope.dimension_count' = 1, expected 2");
  CHECK(with([](auto& f) { f.integer("llama.vocab_size", 3); }) ==
        has + "'llama.vocab_size' = 3, expected 2");
  CHECK(with([](auto& f) { f.text("llama.attention.head_count_kv", "1"); }) ==
        has + "'llama.attention.head_count_kv' of type string, expected an integer");
  CHECK(with([](auto& f) { f.integer("llama.attention.head_count_kv", 2); }) ==
        "'FILE': decoder::config: kv_head_count is 2, expected 1..1");
  CHECK(with([](auto& f) { f.text("llama.rope.scaling.type", "longrope"); }) ==
        has + "'llama.rope.scaling.type' = 'longrope', expected none, linear or yarn");
  CHECK(with([](auto& f) {
          f.text("llama.rope.scaling.type", "yarn")
              .number("llama.rope.scaling.factor", 4)
              .integer("llama.rope.scaling.original_context_length", 64)
              .number("llama.rope.scaling.yarn_log_multiplier", 0.1f);
        }) == has + "'llama.rope.scaling.yarn_log_multiplier', which is not supported");
  CHECK(with([](auto& f) {
          f.tensor("rope_freqs.weight", {1}, 0, testing::bytes_of(0.0f));
        }).starts_with(has + "'rope_freqs.weight'[0] = 0, expected "));
  CHECK(with([](auto& f) { f.tensor("rope_freqs.weight", {2}, 0, testing::bytes_of(1.0)); }) ==
        has + "'rope_freqs.weight' of 2 elements, expected head_width / 2 = 1");
}

TEST_CASE("pretrained: GGUF tensors that are missing or extra are named as in the file") {
  auto file = testing::tiny_llama();
  file.tensor("blk.0.attn_q.bias", {2}, 0, std::string(8, '\0'));
  CHECK(
      message_of_gguf(file) ==
      "decoder::pretrained: 'FILE' has tensor 'blk.0.attn_q.bias', which the model does not have");
  file = testing::tiny_llama();
  file.tensors.pop_back();
  CHECK(message_of_gguf(file) ==
        "decoder::pretrained: 'FILE' has no tensor 'blk.0.ffn_norm.weight', expected one of [2]");
  file = testing::tiny_llama();
  file.tensors.clear();
  CHECK(message_of_gguf(file) == "decoder::gguf: 'FILE' has no tensor 'token_embd.weight'");
}
