// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// tokenizer.json: the ids of Hugging Face's tokenizers, for every kind of component that is read.
#include <doctest/doctest.h>

#include "examples/decoder/tokenizer_json.hpp"
#include "tests/support/reference_file.hpp"
#include "tests/support/temporary_directory.hpp"

using namespace decoder;
using ids = std::vector<std::int32_t>;
using nlohmann::json;

namespace {

json const& vectors() {
  static json const read = lamina::testing::read_reference("tokenizer_vectors.json");
  return read;
}

tokenizer read(json const& description) {
  return tokenizer(define_tokenizer(description.dump(), "tokenizer.json"));
}

json description_of(std::string const& name) {
  for (json const& entry : vectors()["tokenizers"]) {
    if (entry["name"] == name) return entry["tokenizer"];
  }
  FAIL("no tokenizer " << name);
  return {};
}

// What is said of a description in which a place has another value.
std::string refusal(char const* name, char const* place, json const& value) {
  json description = description_of(name);
  description[json::json_pointer(place)] = value;
  try {
    read(description);
  } catch (lamina::error const& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("tokenizer.json: ids are those of Hugging Face, and decode gives back its texts") {
  json const& texts = vectors()["texts"];
  json const& some = vectors()["some"];
  CHECK(vectors()["tokenizers"].size() == 11);
  for (json const& entry : vectors()["tokenizers"]) {
    auto const name = entry["name"].get<std::string>();
    CAPTURE(name);
    auto const t = read(entry["tokenizer"]);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      auto const text = texts[i].get<std::string>();
      CAPTURE(text);
      auto const expected = entry["ids"][i].get<ids>();
      CHECK(t.encode(text) == expected);
      auto const other = entry["decoded"].find(std::to_string(i));
      if (other == entry["decoded"].end()) {
        CHECK(t.decode(expected) == text);
      } else if (!other->is_null()) {
        CHECK(t.decode(expected) == other->get<std::string>());
      }
    }
    for (std::size_t i = 0; i < some.size(); ++i) {
      auto const text = some[i].get<std::string>();
      CAPTURE(text);
      CHECK(t.encode(text, {.add_special_tokens = false}) == entry["plain_ids"][i].get<ids>());
      CHECK(t.encode(text, {.split_special_tokens = true}) == entry["split_ids"][i].get<ids>());
      json const& decoded = entry["decoded_without_special"][i];
      if (!decoded.is_null()) {
        CHECK(t.decode(t.encode(text), {.skip_special_tokens = true}) ==
              decoded.get<std::string>());
      }
    }
  }
}

TEST_CASE("tokenizer.json: what is not supported is refused by name") {
  CHECK(refusal("gpt2", "/model/type", "Unigram") ==
        "'tokenizer.json': $.model is of type Unigram, expected BPE");
  CHECK(refusal("gpt2", "/model/byte_fallback", true) ==
        "'tokenizer.json': $.model.byte_fallback is true, expected false: only byte-level BPE is "
        "read, no tokenizer converted from SentencePiece");
  CHECK(refusal("gpt2", "/model/dropout", 0.1) ==
        "'tokenizer.json': $.model.dropout is 0.1, expected null: this is not supported");
  CHECK(refusal("gpt2", "/model/end_of_word_suffix", "</w>") ==
        "'tokenizer.json': $.model.end_of_word_suffix is \"</w>\", expected null: this is not "
        "supported");
  CHECK(refusal("gpt2", "/model/unk_token", "<unk>") ==
        "'tokenizer.json': $.model.unk_token is '<unk>', expected a token of the vocabulary");
  CHECK(refusal("qwen2", "/normalizer/type", "Lowercase") ==
        "'tokenizer.json': $.normalizer is of type Lowercase, expected NFC");
  CHECK(refusal("gpt2", "/pre_tokenizer/type", "Metaspace") ==
        "'tokenizer.json': $.pre_tokenizer is of type Metaspace, expected ByteLevel, Digits or "
        "Split");
  CHECK(
      refusal("llama3", "/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\w+") ==
      "'tokenizer.json': $.pre_tokenizer.pretokenizers[0].pattern.Regex is \"\\w+\", expected the "
      "pattern of GPT-2, Llama 3 or Qwen2");
  CHECK(refusal("llama3", "/pre_tokenizer/pretokenizers/0/behavior", "Removed") ==
        "'tokenizer.json': $.pre_tokenizer.pretokenizers[0] has behavior Removed and invert 0, "
        "expected Isolated and 0");
  CHECK(refusal("llama3", "/pre_tokenizer/pretokenizers/2", {{"type", "Digits"}}) ==
        "'tokenizer.json': $.pre_tokenizer.pretokenizers[2] is of type Digits, expected nothing "
        "behind ByteLevel");
  CHECK(refusal("smollm", "/pre_tokenizer", {{"type", "Digits"}}) ==
        "'tokenizer.json': $.pre_tokenizer has no ByteLevel: only byte-level BPE is read");
  CHECK(refusal("gpt2", "/post_processor", {{"type", "BertProcessing"}}) ==
        "'tokenizer.json': $.post_processor is of type BertProcessing, expected ByteLevel, one "
        "TemplateProcessing");
  CHECK(refusal("gpt2", "/decoder", {{"type", "WordPiece"}}) ==
        "'tokenizer.json': $.decoder is of type WordPiece, expected ByteLevel");
}

TEST_CASE("tokenizer.json: what contradicts itself is refused with its place") {
  CHECK(refusal("gpt2", "/model", 7) == "'tokenizer.json': $.model is 7, expected an object");
  CHECK(refusal("gpt2", "/model/vocab/a", 5000) ==
        "'tokenizer.json': $.model.vocab.a is 5000, expected an integer in [0, 341]");
  CHECK(refusal("gpt2", "/model/vocab/a", 2) ==
        "'tokenizer.json': $.model.vocab: 'a' and '!' both have id 2");
  CHECK(refusal("gpt2", "/model/merges/3", "ab") ==
        "'tokenizer.json': $.model.merges[3] is not two tokens, as \"a b\" or [\"a\", \"b\"]");
  CHECK(refusal("gpt2", "/model/merges/3", "z \u4e00") ==
        "decoder::tokenizer: merge 3 makes 'z' and '\u4e00' one, but '\u4e00' is no token");
  CHECK(refusal("gpt2", "/added_tokens/1/id", 0) ==
        "decoder::tokenizer: added token '</s>' has id 0, but it is token 1");
  CHECK(refusal("gpt2", "/added_tokens/1/content", "<new>") ==
        "decoder::tokenizer: added token '<new>' has id 1, but token '</s>' has it");
  CHECK(refusal("gpt2", "/added_tokens/1/id", 400) ==
        "'tokenizer.json': $.added_tokens: '</s>' has id 400, expected 0..341");
  CHECK(refusal("llama3", "/post_processor/processors/1/special_tokens/<s>/ids/0", 9999) ==
        "decoder::tokenizer: a token of the prefix is 9999, expected 0..341");
  CHECK(refusal("llama3", "/post_processor/processors/1/single", json::array()) ==
        "'tokenizer.json': $.post_processor.processors[1].single has no text between its tokens");
}

TEST_CASE("tokenizer directory: the tokens of tokenizer_config.json and the chat template") {
  lamina::testing::temporary_directory const directory;
  auto const write = [&](char const* name, std::string const& text) {
    lamina::write_file_atomically(directory / name, text);
  };
  write("tokenizer.json", description_of("gpt2").dump());
  CHECK(read_tokenizer(directory.path()).eos_id == std::nullopt);
  write("tokenizer_config.json",
        R"({"bos_token": null, "eos_token": {"content": "</s>"}, "pad_token": "<s>",
            "chat_template": [{"name": "tool_use", "template": "x"},
                              {"name": "default", "template": "y"}]})");
  tokenizer const t(read_tokenizer(directory.path()));
  CHECK(t.bos_id() == std::nullopt);
  CHECK(t.eos_id() == 1);
  CHECK(t.padding_id() == 0);
  CHECK(t.chat_template() == "y");
  write("chat_template.jinja", "z");
  CHECK(read_tokenizer(directory.path()).chat_template == "z");
  write("tokenizer_config.json", R"({"eos_token": "<end>"})");
  CHECK_THROWS_WITH_AS(read_tokenizer(directory.path()),
                       doctest::Contains("$.eos_token is '<end>', expected a token"),
                       lamina::format_error);
}
