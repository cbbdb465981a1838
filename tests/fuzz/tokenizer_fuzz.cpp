// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Any bytes as a tokenizer.json and as a text: decode gives back what was encoded, whatever the
// pre-tokenizer, and merges are those of the plain quadratic loop.
#include <map>

#include "examples/decoder/tokenizer_json.hpp"
#include "tests/fuzz/require.hpp"

namespace {

using namespace decoder;
using tokens = std::vector<std::int32_t>;

// U+0000 to U+07FF.
std::string utf8(int value) {
  if (value < 0x80) return {static_cast<char>(value)};
  return {static_cast<char>(0xC0 | value >> 6), static_cast<char>(0x80 | (value & 0x3F))};
}

// All bytes, ids 0 to 255, and merges that cross blanks, digits, quotes and characters.
tokenizer_definition all_bytes() {
  tokenizer_definition result;
  result.tokens.resize(256);
  for (int value = 0; value < 0x144; ++value) {
    if (auto const bytes = spelled_bytes(utf8(value))) {
      result.tokens[static_cast<unsigned char>((*bytes)[0])] = utf8(value);
    }
  }
  auto const merge = [&result](std::size_t left, std::size_t right) {
    result.merges.emplace_back(result.tokens[left], result.tokens[right]);
    result.tokens.push_back(result.tokens[left] + result.tokens[right]);
  };
  for (auto const& pair :
       {"aa", " a", "ab", "'s", "11", "\n\n", "  ", "ba", "\xC3\xA9", "a ", "<s"}) {
    merge(static_cast<unsigned char>(pair[0]), static_cast<unsigned char>(pair[1]));
  }
  for (std::size_t i = 0; i < 8; ++i) merge(256 + i, 256 + (i * 3) % 8);
  return result;
}

tokenizer of_steps(std::vector<split_step> steps) {
  tokenizer_definition definition = all_bytes();
  definition.pre_tokenizer = std::move(steps);
  for (char const* text : {"<s>", "</s>", "<s>a", "  "}) {
    auto const id = static_cast<std::int32_t>(definition.tokens.size());
    definition.tokens.emplace_back();
    definition.added_tokens.push_back({.text = text, .id = id, .special = text[0] == '<'});
  }
  return tokenizer(definition);
}

// The definition of byte-pair encoding, read aloud.
tokens merged_slowly(std::string_view word) {
  static tokenizer_definition const definition = all_bytes();
  static auto const ranks = [] {
    std::map<std::pair<std::int32_t, std::int32_t>, std::size_t> result;
    std::map<std::string, std::int32_t> ids;
    for (auto const& token : definition.tokens) {
      ids.emplace(token, static_cast<std::int32_t>(ids.size()));
    }
    for (std::size_t i = 0; i < definition.merges.size(); ++i) {
      auto const& [left, right] = definition.merges[i];
      result[{ids.at(left), ids.at(right)}] = i;
    }
    return result;
  }();
  tokens result;
  for (char const c : word) result.push_back(static_cast<unsigned char>(c));
  while (true) {
    std::size_t best = ranks.size(), at = 0;
    for (std::size_t i = 0; i + 1 < result.size(); ++i) {
      auto const found = ranks.find({result[i], result[i + 1]});
      if (found != ranks.end() && found->second < best) best = found->second, at = i;
    }
    if (best == ranks.size()) return result;
    result[at] = static_cast<std::int32_t>(256 + best);
    result.erase(result.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

void check_text(tokenizer const& t, std::string_view text) {
  bool const split = text.size() % 2 == 0;
  try {
    tokens const ids = t.encode(text, {.split_special_tokens = split});
    require(find_invalid_utf8(text) == std::string_view::npos);
    require(t.decode(ids) == text);
    std::string streamed;
    text_stream stream(t);
    for (std::int32_t const id : ids) {
      std::string const characters = stream.add(id);
      require(find_invalid_utf8(characters) == std::string_view::npos);
      streamed += characters;
    }
    require(streamed == text && stream.finish().empty());
  } catch (lamina::config_error const&) {
    require(find_invalid_utf8(text) != std::string_view::npos);
  }
}

void check_description(std::string_view text) {
  try {
    tokenizer const t(define_tokenizer(text, "fuzz"));
    for (std::int32_t const id : t.encode("a b 12 \xC3\xA9<s>")) t.bytes(id);
  } catch (lamina::format_error const&) {
  } catch (lamina::config_error const&) {
  }
}

}  // namespace

// The first byte says as what the others are read.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using enum split_step;
  static tokenizer const tokenizers[] = {of_steps({gpt2}),       of_steps({digits, gpt2}),
                                         of_steps({llama3}),     of_steps({qwen2}),
                                         of_steps({digit_runs}), of_steps({})};
  static tokenizer const whole(all_bytes());
  if (size == 0) return 0;
  std::string_view const rest(reinterpret_cast<char const*>(data) + 1, size - 1);
  int const kind = data[0] % 8;
  if (kind < 6) check_text(tokenizers[kind], rest);
  if (kind == 6) check_description(rest);
  if (kind == 7 && find_invalid_utf8(rest) == std::string_view::npos) {
    require(whole.encode(rest) == merged_slowly(rest));
  }
  return 0;
}
