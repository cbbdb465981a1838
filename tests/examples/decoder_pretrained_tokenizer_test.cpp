// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tokenizer in the metadata of a GGUF model, and what is wrong with one.
#include <doctest/doctest.h>

#include "examples/decoder/pretrained_tokenizer.hpp"
#include "tests/examples/gguf_builder.hpp"

using namespace decoder;
using namespace decoder::testing;

namespace {

std::string array(gguf_type type, std::vector<std::string> const& elements) {
  std::string bytes = bytes_of(type) + bytes_of<std::uint64_t>(elements.size());
  for (std::string const& element : elements) {
    bytes += type == gguf_type::string ? gguf_string(element) : element;
  }
  return bytes;
}

gguf_builder with_tokenizer(std::vector<std::string> const& tokens) {
  auto file = tiny_llama();
  file.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", "gpt-2")
      .key("tokenizer.ggml.tokens", gguf_type::array, array(gguf_type::string, tokens))
      .key("tokenizer.ggml.merges", gguf_type::array, array(gguf_type::string, {}));
  return file;
}

template <class Read>
std::string message_of(Read const& read) {
  try {
    read();
  } catch (lamina::format_error const& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("pretrained_tokenizer: every field of the metadata arrives") {
  auto builder = with_tokenizer({"a", "<end>"});
  builder
      .key("tokenizer.ggml.token_type", gguf_type::array,
           array(gguf_type::int32, {bytes_of(1), bytes_of(3)}))
      .integer("tokenizer.ggml.bos_token_id", 0)
      .integer("tokenizer.ggml.eos_token_id", 1)
      .key("tokenizer.ggml.add_bos_token", gguf_type::boolean, bytes_of(true))
      .text("tokenizer.chat_template", "{{ words }}");
  std::string const bytes = builder.file();
  gguf_vocabulary const read = read_vocabulary(gguf(bytes, "FILE"));
  CHECK(read.model == "gpt2");
  CHECK(read.pre == "gpt-2");
  CHECK(read.tokens == std::vector<std::string>{"a", "<end>"});
  CHECK(read.merges.empty());
  CHECK(read.token_types == std::vector<std::int32_t>{1, 3});
  CHECK(read.bos_id == 0);
  CHECK(read.eos_id == 1);
  CHECK(!read.padding_id);
  CHECK(read.add_bos == true);
  CHECK(!read.add_eos);
  CHECK(read.chat_template == "{{ words }}");

  tokenizer const tokens(read_tokenizer(pretrained::from_gguf(bytes, "FILE")));
  CHECK(tokens.encode("aa<end>") == std::vector<std::int32_t>{0, 0, 0, 1});
}

TEST_CASE("pretrained_tokenizer: fields that are missing, wrong or too many are refused") {
  std::string const none = tiny_llama().file();
  CHECK(message_of([&] { read_vocabulary(gguf(none, "FILE")); }) ==
        "decoder::gguf: 'FILE' has no 'tokenizer.ggml.model', expected a string");
  auto builder = with_tokenizer({"a", "b"});
  builder.key("tokenizer.ggml.eos_token_id", gguf_type::int32, bytes_of(-1));
  std::string const negative = builder.file();
  CHECK(
      message_of([&] { read_vocabulary(gguf(negative, "FILE")); }) ==
      "decoder::read_vocabulary: 'FILE' has 'tokenizer.ggml.eos_token_id' = -1, expected 0..2^31 - "
      "1");
  std::string const many = with_tokenizer({"a", "b", "c"}).file();
  CHECK(message_of([&] { read_tokenizer(pretrained::from_gguf(many, "FILE")); }) ==
        "decoder::read_tokenizer: 'FILE' has 3 tokens, expected at most the vocabulary of 2");
}
