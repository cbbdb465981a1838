// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Chat templates: recognised by their text, rendered as Hugging Face renders them.
#include "examples/decoder/chat_template.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "tests/support/reference_file.hpp"

using namespace decoder;
using nlohmann::json;

namespace {

json const& vectors() {
  static json const read = lamina::testing::read_reference("chat_template_vectors.json");
  return read;
}

std::string template_of(char const* name) { return vectors()["templates"][name]; }

std::string refusal(std::string const& jinja, std::vector<chat_message> const& messages) {
  try {
    return chat_template(jinja).render(messages);
  } catch (lamina::config_error const& e) {
    return e.what();
  }
}

// The template with a part replaced that is certainly there.
std::string changed(std::string text, std::string const& part, std::string const& other) {
  REQUIRE(text.find(part) != std::string::npos);
  return text.replace(text.find(part), part.size(), other);
}

}  // namespace

TEST_CASE("chat_template: SmolLM2 without a system message has its own") {
  chat_template const chat(template_of("smollm2"));
  std::vector<chat_message> const messages{{"user", "What is 3+4?"}};
  CHECK(chat.render(messages) ==
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nWhat is 3+4?<|im_end|>\n<|im_start|>assistant\n");
}

TEST_CASE("chat_template: every family is rendered as by Hugging Face") {
  CHECK(vectors()["templates"].size() == 7);
  for (json const& entry : vectors()["cases"]) {
    auto const name = entry["template"].get<std::string>();
    CAPTURE(name);
    std::vector<chat_message> messages;
    for (json const& message : entry["messages"]) messages.push_back({message[0], message[1]});
    chat_template const chat(vectors()["templates"][name].get<std::string>());
    CHECK(chat.render(messages, {.add_generation_prompt = entry["generation"],
                                 .enable_thinking = entry["thinking"],
                                 .date = "25 Nov 2026"}) == entry["text"].get<std::string>());
  }
}

TEST_CASE("chat_template: an unknown template, or a known one with another ending, is refused") {
  std::vector<chat_message> const messages{{"user", "a"}};
  CHECK(refusal("{{ messages[0]['content'] }}", messages) ==
        "decoder::chat_template: this template of 28 bytes is none of those that are known "
        "(SmolLM2, Qwen2, Qwen2.5, Qwen3, Llama 3); it begins '{{ messages[0]['content'] }}'");
  struct change {
    char const *name, *part, *other;
  };
  for (change const& c :
       {change{"smollm2", "<|im_end|>' + '\\n'", "<|im_end|>'"},
        change{"smollm2", "named SmolLM", "named {{ name }}"},
        change{"qwen2_5", "assistant\\n' }}", "assistant\\n<think>\\n' }}"},
        change{"qwen3", "content.lstrip('\\n') }}", "content }}"}, change{"llama3", " | trim", ""},
        change{"llama3_2", "Today Date", "Date"}}) {
    CAPTURE(c.name);
    CAPTURE(c.part);
    CHECK_THROWS_AS(chat_template(changed(template_of(c.name), c.part, c.other)),
                    lamina::config_error);
  }
}

TEST_CASE("chat_template: messages that no template is made for are refused") {
  auto const chatml = template_of("chatml");
  CHECK(refusal(chatml, {}) == "decoder::chat_template: there are no messages, expected one");
  CHECK(refusal(chatml, {{"user", "a"}, {"tool", "b"}}) ==
        "decoder::chat_template: role of message 1 is 'tool', expected user or assistant, or "
        "system for message 0");
  CHECK(refusal(chatml, {{"user", "a"}, {"system", "b"}}) ==
        "decoder::chat_template: role of message 1 is 'system', expected user or assistant, or "
        "system for message 0");
}
