// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Conversations as the text a chat model was trained on. A template is recognised by its text and
// rendered by hand: there is no Jinja engine here.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "lamina/core/error.hpp"

namespace decoder {

/// One turn of a conversation: role is system, user or assistant.
struct chat_message {
  std::string role;
  std::string content;
};

/// add_generation_prompt  the text ends where the assistant's answer begins
struct chat_options {
  bool add_generation_prompt = true;
};

/// The chat template of a model.
class chat_template {
 public:
  /// Recognises the Jinja text of a chat template: ChatML with a default system prompt (SmolLM2,
  /// Qwen2).
  ///
  /// Throws config_error for a template that is not one of these.
  explicit chat_template(std::string_view jinja) {
    if (!read_chatml(jinja)) {
      lamina::throw_config_error("decoder::chat_template: this template of ", jinja.size(),
                                 " bytes is none of those that are known (ChatML of SmolLM2 and "
                                 "Qwen2); it begins '",
                                 jinja.substr(0, 60), "'");
    }
  }

  /// The conversation as text, special tokens written out: encode it without adding any.
  ///
  /// Throws config_error for no messages.
  std::string render(std::span<chat_message const> messages, chat_options options = {}) const {
    if (messages.empty()) {
      lamina::throw_config_error("decoder::chat_template: there are no messages, expected one");
    }
    std::string text;
    if (messages[0].role != "system") text += turn("system", default_system_);
    for (chat_message const& message : messages) text += turn(message.role, message.content);
    if (options.add_generation_prompt) text += "<|im_start|>assistant\n";
    return text;
  }

 private:
  static std::string turn(std::string_view role, std::string_view content) {
    std::string text = "<|im_start|>";
    return text.append(role).append("\n").append(content).append("<|im_end|>\n");
  }

  // A newline of a Jinja string may be written \n or as itself.
  static std::string with_newlines(std::string_view jinja) {
    std::string text;
    for (std::size_t i = 0; i < jinja.size(); ++i) {
      bool const escaped = jinja.substr(i, 2) == "\\n";
      text += escaped ? '\n' : jinja[i];
      if (escaped) ++i;
    }
    return text;
  }

  bool read_chatml(std::string_view jinja) {
    std::string const text = with_newlines(jinja);
    constexpr std::string_view before =
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\n";
    constexpr std::string_view after =
        "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    if (!text.starts_with(before) || !text.ends_with(after)) return false;
    default_system_ = text.substr(before.size(), text.size() - before.size() - after.size());
    return default_system_.find_first_of("{}'\\") == std::string::npos;
  }

  std::string default_system_;
};

}  // namespace decoder
