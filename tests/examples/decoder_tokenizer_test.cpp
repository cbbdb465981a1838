// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tokenizer: ids worked by hand on a vocabulary small enough to read.
#include "examples/decoder/tokenizer.hpp"

#include <doctest/doctest.h>

#include "examples/decoder/tokenizer_gguf.hpp"

using namespace decoder;
using ids = std::vector<std::int32_t>;

namespace {

// Ids: 0 <s>, 1 <end>, 2 <tool>, 3 a, 4 b, 5 c, 6 blank, 7 '1', 8 "ab", 9 " ab", 10 "bc",
// 11 and 12 the two bytes of U+00E9 (C3 is spelled U+00C3, A9 is spelled U+00A9).
gguf_vocabulary small_vocabulary() {
  return {.pre = "smollm",
          .tokens = {"<s>", "<end>", "<tool>", "a", "b", "c", "\u0120", "1", "ab", "\u0120ab", "bc",
                     "\u00C3", "\u00A9"},
          .merges = {"b c", "a b", "\u0120 ab"},
          .token_types = {3, 3, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
          .bos_id = 0,
          .eos_id = 1};
}

tokenizer small_tokenizer() { return tokenizer(define_tokenizer(small_vocabulary())); }

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (lamina::config_error const& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE(
    "tokenizer: the pair of the lowest rank is merged first, and of equal pairs the leftmost") {
  auto const t = small_tokenizer();
  CHECK(t.encode("ab") == ids{8});
  CHECK(t.encode("abc") == ids{3, 10});  // "b c" ranks before "a b"
  CHECK(t.encode("ab ab") == ids{8, 9});
  CHECK(t.encode("abab abc") == ids{8, 8, 6, 3, 10});
  CHECK(t.encode("a1bc") == ids{3, 7, 10});
  CHECK(t.encode("").empty());
}

TEST_CASE("tokenizer: a word of a million letters does not take its square in steps") {
  gguf_vocabulary file{.pre = "gpt-2", .tokens = {"a", "aa", "aaaa"}, .merges = {"a a", "aa aa"}};
  tokenizer const t(define_tokenizer(file));
  auto const tokens = t.encode(std::string((1 << 20) + 3, 'a'));
  REQUIRE(tokens.size() == (1 << 18) + 2);
  CHECK(tokens.front() == 2);
  CHECK(ids(tokens.end() - 3, tokens.end()) == ids{2, 1, 0});
}

TEST_CASE("tokenizer: text comes back byte for byte") {
  auto const t = small_tokenizer();
  for (char const* text :
       {"", "ab ab", "  a  b1\u00E9", "<s>ab<end>", "a<tool> b", "<tool><tool>"}) {
    CHECK(t.decode(t.encode(text)) == text);
  }
}

TEST_CASE("tokenizer: a byte without a token is left out, as Hugging Face does") {
  CHECK(small_tokenizer().encode("axb") == ids{8});
}

TEST_CASE("tokenizer: special tokens are found in the text unless they are to be split") {
  auto const t = small_tokenizer();
  CHECK(t.encode("ab<end> ab<s>") == ids{8, 1, 9, 0});
  CHECK(t.encode("b<end>c<tool>", {.split_special_tokens = true}) == ids{4, 5, 2});
  CHECK(t.decode(ids{0, 8, 2, 1}) == "<s>ab<tool><end>");
  CHECK(t.decode(ids{0, 8, 2, 1}, {.skip_special_tokens = true}) == "ab<tool>");
  CHECK(t.find("<end>") == 1);
  CHECK(t.find("nothing") == std::nullopt);
  CHECK(t.is_special(1));
  CHECK_FALSE(t.is_special(2));
}

TEST_CASE("tokenizer: what the file wants around a text is put there on request") {
  auto file = small_vocabulary();
  file.add_bos = file.add_eos = true;
  tokenizer const t(define_tokenizer(file));
  CHECK(t.encode("ab") == ids{0, 8, 1});
  CHECK(t.encode("ab", {.add_special_tokens = false}) == ids{8});
  file.bos_id = std::nullopt;
  CHECK(refusal([&] { define_tokenizer(file); }) ==
        "decoder::define_tokenizer: tokenizer.ggml.add_bos_token is set, but there is no bos id");
}

TEST_CASE("text_stream: a character is handed out when its last byte is there") {
  auto const t = small_tokenizer();
  text_stream stream(t, {.skip_special_tokens = true});
  CHECK(stream.add(3) == "a");
  CHECK(stream.add(11) == "");
  CHECK(stream.add(12) == "\u00E9");
  CHECK(stream.add(1) == "");
  CHECK(stream.add(12) == "\xA9");  // begins no character: nothing to wait for
  CHECK(stream.add(11) == "");
  CHECK(stream.finish() == "\xC3");
  CHECK(stream.finish() == "");
}

TEST_CASE("tokenizer: errors name the value and what was expected") {
  auto const t = small_tokenizer();
  CHECK(refusal([&] {
          t.decode(ids{3, 13});
        }) == "decoder::tokenizer::decode: token is 13, expected 0..12");
  CHECK(refusal([&] { t.decode(ids{-1}); }) ==
        "decoder::tokenizer::decode: token is -1, expected 0..12");
  CHECK(refusal([&] { t.encode("ab\xC3"); }) ==
        "decoder::tokenizer::encode: byte 195 at offset 2 of the text is not UTF-8");

  auto const refused = [](auto&& change) {
    auto file = small_vocabulary();
    change(file);
    return refusal([&] { tokenizer{define_tokenizer(file)}; });
  };
  CHECK(refused([](auto& f) { f.model = "llama"; }) ==
        "decoder::define_tokenizer: tokenizer.ggml.model is 'llama', expected gpt2: only "
        "byte-level BPE is read, no SentencePiece, WordPiece or Unigram");
  CHECK(refused([](auto& f) { f.pre = "tekken"; }) ==
        "decoder::define_tokenizer: tokenizer.ggml.pre is 'tekken', expected gpt-2, smollm, "
        "llama-bpe or qwen2");
  CHECK(refused([](auto& f) { f.merges[1] = "ab"; }) ==
        "decoder::define_tokenizer: tokenizer.ggml.merges[1] is 'ab', expected two tokens with a "
        "blank between them");
  CHECK(refused([](auto& f) { f.merges[1] = "a x"; }) ==
        "decoder::tokenizer: merge 1 makes 'a' and 'x' one, but 'x' is no token");
  CHECK(refused([](auto& f) { f.tokens[4] = "a"; }) ==
        "decoder::tokenizer: tokens 3 and 4 are both 'a'");
  CHECK(refused([](auto& f) { f.token_types.pop_back(); }) ==
        "decoder::define_tokenizer: tokenizer.ggml.token_type has 12 entries, expected 13, one for "
        "each of tokenizer.ggml.tokens");
  CHECK(refused([](auto& f) { f.eos_id = 13; }) ==
        "decoder::tokenizer: eos_id is 13, expected 0..12");
  CHECK(refused([](auto& f) { f.tokens[12] = ""; }) == "decoder::tokenizer: id 12 has no token");
}
