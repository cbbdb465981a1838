// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Chat templates: recognised by their text, rendered as Hugging Face renders them.
#include "examples/decoder/chat_template.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace decoder;

namespace {

// SmolLM2-135M-Instruct, as its GGUF file has it.
constexpr char const* smollm2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}";

}  // namespace

TEST_CASE("chat_template: SmolLM2 without a system message has its own") {
  chat_template const chat(smollm2);
  std::vector<chat_message> const messages{{"user", "What is 3+4?"}};
  CHECK(chat.render(messages) ==
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nWhat is 3+4?<|im_end|>\n<|im_start|>assistant\n");
  CHECK(chat.render(std::vector<chat_message>{{"system", "Be brief."}, {"user", "Hi"}},
                    {.add_generation_prompt = false}) ==
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
}

TEST_CASE("chat_template: an unknown template is refused") {
  CHECK_THROWS_AS(chat_template("{{ messages[0]['content'] }}"), lamina::config_error);
}
