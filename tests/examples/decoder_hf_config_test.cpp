// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// config.json of Hugging Face: frequencies as transformers has them, and an error for whatever the
// decoder does not do.
#include <doctest/doctest.h>

#include <cmath>

#include "examples/decoder/hf_config.hpp"
#include "tests/support/reference_file.hpp"

using namespace decoder;

namespace {

nlohmann::json const llama = {{"architectures", {"LlamaForCausalLM"}},
                              {"num_hidden_layers", 3},
                              {"hidden_size", 64},
                              {"num_attention_heads", 4},
                              {"intermediate_size", 96},
                              {"vocab_size", 100},
                              {"rms_norm_eps", 1e-5}};

/// llama with members put on top; null removes one.
nlohmann::json with(nlohmann::json const& members) {
  nlohmann::json config = llama;
  config.merge_patch(members);
  return config;
}

config shape_of(nlohmann::json const& document) { return parse_hf_config(document.dump(), "FILE"); }

std::string message_of(nlohmann::json const& document) {
  try {
    shape_of(document);
  } catch (lamina::format_error const& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("hf_config: rotary frequencies are those of transformers, however they are written") {
  auto const document = lamina::testing::read_reference("checkpoints/rope.json");
  REQUIRE(document.size() == 12);
  for (auto const& reference : document) {
    CAPTURE(reference["config"].dump());
    config const shape = shape_of(reference["config"]);
    REQUIRE(static_cast<index_t>(reference["frequencies"].size()) == shape.head_width / 2);
    CHECK(shape.rope.magnitude ==
          doctest::Approx(reference["magnitude"].get<double>()).epsilon(1e-14));
    for (index_t i = 0; i < shape.head_width / 2; ++i) {
      double const expected = reference["frequencies"][static_cast<std::size_t>(i)];
      double const frequency = rope_frequency(shape.rope, shape.rope_theta, shape.head_width, i);
      CHECK(std::abs(frequency - expected) <= 1e-13 * expected);
    }
  }
}

TEST_CASE("hf_config: the shape is what the file says, the rest what transformers assumes") {
  config const plain = shape_of(llama);
  CHECK(plain == config{.layer_count = 3,
                        .width = 64,
                        .head_count = 4,
                        .kv_head_count = 4,
                        .head_width = 16,
                        .ffn_width = 96,
                        .vocab = 100,
                        .rope_theta = 10000,
                        .norm_epsilon = 1e-5});
  config const full = shape_of(with({{"num_key_value_heads", 2},
                                     {"head_dim", 32},
                                     {"tie_word_embeddings", true},
                                     {"rope_theta", 5e5},
                                     {"hidden_act", "silu"},
                                     {"torch_dtype", "bfloat16"}}));
  CHECK(full.kv_head_count == 2);
  CHECK(full.head_width == 32);
  CHECK(full.tied_head);
  CHECK(full.rope_theta == 5e5);
  nlohmann::json const qwen2 = with({{"architectures", {"Qwen2ForCausalLM"}},
                                     {"num_key_value_heads", 4},
                                     {"use_sliding_window", false},
                                     {"sliding_window", 4096},
                                     {"max_window_layers", 2}});
  CHECK(shape_of(qwen2).qkv_bias);
  CHECK(!shape_of(qwen2).qk_norm);
  config const qwen3 =
      shape_of(with({{"architectures", {"Qwen3ForCausalLM"}}, {"num_key_value_heads", 4}}));
  CHECK(qwen3.qk_norm);
  CHECK(!qwen3.qkv_bias);
  CHECK(qwen3.head_width == 128);
}

TEST_CASE("hf_config: what the decoder does not do is refused by name") {
  std::string const head = "decoder::hf_config: 'FILE': $";
  CHECK(message_of(with({{"architectures", {"GemmaForCausalLM"}}})) ==
        head +
            ".architectures[0] is 'GemmaForCausalLM', expected LlamaForCausalLM, "
            "Qwen2ForCausalLM or Qwen3ForCausalLM");
  CHECK(message_of(with({{"hidden_act", "gelu"}})) ==
        head + ".hidden_act is 'gelu', expected silu");
  CHECK(message_of(with({{"attention_bias", true}})) ==
        head + ".attention_bias is true, expected false");
  CHECK(message_of(with({{"mlp_bias", true}})) == head + ".mlp_bias is true, expected false");
  CHECK(message_of(with({{"partial_rotary_factor", 0.5}})) ==
        head + ".partial_rotary_factor is 0.5, expected 1");
  CHECK(message_of(with({{"quantization_config", {{"bits", 4}}}})) ==
        head + ".quantization_config is there, expected weights that are not quantized");
  CHECK(message_of(with({{"rope_scaling", {{"type", "dynamic"}, {"factor", 2}}}})) ==
        head + ".rope_scaling.type is 'dynamic', expected default, linear, llama3 or yarn");
  CHECK(message_of(with({{"rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}}})) ==
        head + ".rope_parameters has the member 'full_attention', which is not supported");
  nlohmann::json const qwen =
      with({{"architectures", {"Qwen2ForCausalLM"}}, {"num_key_value_heads", 4}});
  auto slides = qwen;
  slides.update({{"use_sliding_window", true}, {"sliding_window", 8}, {"max_window_layers", 2}});
  CHECK(message_of(slides) == head + ".use_sliding_window is true, expected false");
  slides["max_window_layers"] = 3;
  CHECK(message_of(slides) == "");
  slides["layer_types"] = {"full_attention", "sliding_attention", "full_attention"};
  CHECK(message_of(slides) ==
        head + ".layer_types[1] is 'sliding_attention', expected full_attention");
}

TEST_CASE("hf_config: members that are missing, of another type or impossible are named") {
  for (char const* const key :
       {"architectures", "num_hidden_layers", "hidden_size", "num_attention_heads",
        "intermediate_size", "vocab_size", "rms_norm_eps"}) {
    CAPTURE(std::string(key));
    CHECK(message_of(with({{key, nullptr}})) ==
          "'FILE': $ has no member \"" + std::string(key) + "\"");
    std::string const wrong = message_of(with({{key, "text"}}));
    CHECK(wrong.starts_with("'FILE': $." + std::string(key) + " is \"text\", expected "));
  }
  CHECK(message_of(with({{"architectures", {"Qwen2ForCausalLM"}}})) ==
        "'FILE': $ has no member \"num_key_value_heads\"");
  CHECK(message_of(with({{"vocab_size", 1.5}}))
            .starts_with("'FILE': $.vocab_size is 1.5, expected "));
  CHECK(message_of(with({{"num_attention_heads", 0}})) ==
        "'FILE': decoder::config: head_count is 0, expected 1..1024");
  CHECK(message_of(with({{"num_hidden_layers", -1}})) ==
        "'FILE': decoder::config: layer_count is -1, expected 1..512");
  CHECK(message_of(with({{"rope_theta", 1e-300},
                         {"rope_scaling", {{"type", "linear"}, {"factor", 1e-300}}}}))
            .find("rotary frequency") != std::string::npos);
  CHECK(message_of(with({{"rope_scaling", {{"type", "linear"}}}})) ==
        "'FILE': $.rope_scaling has no member \"factor\"");
  CHECK(message_of(with({{"rope_scaling", 3}}))
            .starts_with("'FILE': $.rope_scaling is 3, expected "));
  CHECK(message_of("text").starts_with("'FILE': "));
  CHECK_THROWS_AS(parse_hf_config("{\"a\": ", "FILE"), lamina::format_error);
  CHECK_THROWS_AS(parse_hf_config("{\"a\": 1, \"a\": 1}", "FILE"), lamina::format_error);
  CHECK_THROWS_AS(read_hf_config("/no/such/file"), lamina::io_error);
}
