// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Conversations as the text a chat model was trained on. A template is recognised by its text and
// rendered by hand: there is no Jinja engine here.
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "examples/decoder/unicode.hpp"
#include "lamina/core/error.hpp"

namespace decoder {

/// One turn of a conversation: role is system, user or assistant.
struct chat_message {
  std::string role;
  std::string content;
};

/// add_generation_prompt  the text ends where the assistant's answer begins
/// enable_thinking        Qwen3: false puts an empty thought in front of the answer; elsewhere
/// without
///                        effect, as in Hugging Face
/// date                   what Llama 3.1 and later are told of today, as "26 Jul 2024"
struct chat_options {
  bool add_generation_prompt = true;
  bool enable_thinking = true;
  std::string date = "26 Jul 2024";
};

/// The families of templates that are rendered.
///
/// chatml       turns <|im_start|>role\ncontent<|im_end|>: SmolLM2, Qwen2, Qwen2.5
/// qwen3        the same, without a default system prompt, and with thoughts of earlier answers
///              left out
/// llama3       turns <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>
/// llama3_date  the same behind a system turn with the date: Llama 3.1, 3.2, 3.3
enum class chat_family : unsigned char { chatml, qwen3, llama3, llama3_date };

/// The chat template of a model.
class chat_template {
 public:
  /// Recognises the Jinja text of a chat template by the statements that decide how a conversation
  /// without tools is rendered; all of them have to be there.
  ///
  /// Throws config_error for a template that is of none of the families.
  explicit chat_template(std::string_view jinja) {
    // Jinja itself leaves out one newline at the end.
    if (jinja.ends_with('\n')) jinja.remove_suffix(1);
    std::string const text = with_newlines(jinja);
    std::string const code = without_layout(jinja);
    if (!read_plain_chatml(text) && !read_qwen2_5(text, code) && !read_qwen3(code) &&
        !read_llama3(text) && !read_llama3_date(code)) {
      lamina::throw_config_error("decoder::chat_template: this template of ", jinja.size(),
                                 " bytes is none of those that are known (SmolLM2, Qwen2, Qwen2.5, "
                                 "Qwen3, Llama 3); it begins '",
                                 jinja.substr(0, 60), "'");
    }
  }

  chat_family family() const { return family_; }

  /// The conversation as text, special tokens written out: encode it without adding any.
  ///
  /// Throws config_error for no messages and for a role other than system, user and assistant, and
  /// for a system message that is not the first.
  std::string render(std::span<chat_message const> messages,
                     chat_options const& options = {}) const {
    check(messages);
    switch (family_) {
      case chat_family::chatml: return render_chatml(messages, options);
      case chat_family::qwen3: return render_qwen3(messages, options);
      default: return render_llama3(messages, options);
    }
  }

 private:
  static void check(std::span<chat_message const> messages) {
    if (messages.empty()) {
      lamina::throw_config_error("decoder::chat_template: there are no messages, expected one");
    }
    for (std::size_t i = 0; i < messages.size(); ++i) {
      std::string const& role = messages[i].role;
      bool const known = role == "user" || role == "assistant" || (role == "system" && i == 0);
      if (!known) {
        lamina::throw_config_error("decoder::chat_template: role of message ", i, " is '", role,
                                   "', expected user or assistant, or system for message 0");
      }
    }
  }

  static std::string im_turn(std::string_view role, std::string_view content) {
    std::string text = "<|im_start|>";
    return text.append(role).append("\n").append(content).append("<|im_end|>\n");
  }

  std::string render_chatml(std::span<chat_message const> messages,
                            chat_options const& options) const {
    std::string text;
    if (default_system_ && messages[0].role != "system") text = im_turn("system", *default_system_);
    for (chat_message const& message : messages) text += im_turn(message.role, message.content);
    if (options.add_generation_prompt) text += "<|im_start|>assistant\n";
    return text;
  }

  static std::string_view strip(std::string_view text, std::string_view characters) {
    std::size_t const begin = text.find_first_not_of(characters);
    if (begin == std::string_view::npos) return {};
    return text.substr(begin, text.find_last_not_of(characters) + 1 - begin);
  }

  static std::string_view strip_left(std::string_view text) {
    std::size_t const begin = text.find_first_not_of('\n');
    return begin == std::string_view::npos ? std::string_view{} : text.substr(begin);
  }

  static bool is_tool_response(std::string_view text) {
    return text.starts_with("<tool_response>") && text.ends_with("</tool_response>");
  }

  // Thoughts stay in the answers behind the last question only.
  static std::string render_qwen3(std::span<chat_message const> messages,
                                  chat_options const& options) {
    std::size_t last_query = messages.size() - 1;
    for (std::size_t i = messages.size(); i-- > 0;) {
      if (messages[i].role == "user" && !is_tool_response(messages[i].content)) {
        last_query = i;
        break;
      }
    }
    std::string text;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      chat_message const& message = messages[i];
      if (message.role != "assistant") {
        text += im_turn(message.role, message.content);
        continue;
      }
      constexpr std::string_view open = "<think>", close = "</think>";
      std::string_view content = message.content, thought;
      if (std::size_t const first = content.find(close); first != std::string_view::npos) {
        thought = content.substr(0, first);
        if (auto const at = thought.rfind(open); at != std::string_view::npos) {
          thought.remove_prefix(at + open.size());
        }
        thought = strip(thought, "\n");
        content = strip_left(content.substr(content.rfind(close) + close.size()));
      }
      bool const with_thought = i > last_query && (i + 1 == messages.size() || !thought.empty());
      text += "<|im_start|>assistant\n";
      if (with_thought) {
        text.append("<think>\n").append(thought).append("\n</think>\n\n");
        content = strip_left(content);
      }
      text.append(content).append("<|im_end|>\n");
    }
    if (options.add_generation_prompt) {
      text += "<|im_start|>assistant\n";
      if (!options.enable_thinking) text += "<think>\n\n</think>\n\n";
    }
    return text;
  }

  static std::string header_turn(std::string_view role, std::string_view content) {
    std::string text = "<|start_header_id|>";
    return text.append(role).append("<|end_header_id|>\n\n").append(content).append("<|eot_id|>");
  }

  // Jinja's trim: what Python calls blank goes at both ends.
  static std::string_view trim(std::string_view text) {
    auto const blank = [](std::int32_t value) {
      return is_space(value) || (0x1C <= value && value <= 0x1F);
    };
    while (!text.empty()) {
      std::size_t const last = last_character(text, text.size());
      if (!blank(read_code_point(text, last).value)) break;
      text = text.substr(0, last);
    }
    while (!text.empty() && blank(read_code_point(text, 0).value)) {
      text.remove_prefix(static_cast<std::size_t>(read_code_point(text, 0).size));
    }
    return text;
  }

  std::string render_llama3(std::span<chat_message const> messages,
                            chat_options const& options) const {
    std::string text = "<|begin_of_text|>";
    if (family_ == chat_family::llama3_date) {
      bool const given = messages[0].role == "system";
      std::string system =
          "Cutting Knowledge Date: December 2023\nToday Date: " + options.date + "\n\n";
      if (given) system.append(trim(messages[0].content));
      text += header_turn("system", system);
      if (given) messages = messages.subspan(1);
    }
    for (chat_message const& message : messages) {
      text += header_turn(message.role, trim(message.content));
    }
    if (options.add_generation_prompt) text += "<|start_header_id|>assistant<|end_header_id|>\n\n";
    return text;
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

  // The statements without blanks, newlines between them and the dashes that keep layout out of the
  // output, with one kind of quotes and one spelling of members.
  static std::string without_layout(std::string_view text) {
    std::string code;
    for (char const c : text) {
      if (c != ' ' && c != '\n') code += c == '"' ? '\'' : c;
    }
    for (auto const& [from, to] : {std::pair<std::string_view, std::string_view>{"{%-", "{%"},
                                   {"-%}", "%}"},
                                   {"{{-", "{{"},
                                   {"-}}", "}}"},
                                   {"['role']", ".role"},
                                   {"['content']", ".content"}}) {
      for (std::size_t at = code.find(from); at != std::string::npos; at = code.find(from, at)) {
        code.replace(at, from.size(), to);
      }
    }
    return code;
  }

  static bool has_all(std::string_view code, std::initializer_list<std::string_view> statements) {
    for (std::string_view const statement : statements) {
      if (code.find(statement) == std::string_view::npos) return false;
    }
    return true;
  }

  static bool is_plain(std::string_view literal) {
    return literal.find_first_of("{}'\\") == std::string_view::npos;
  }

  // SmolLM2 and Qwen2: nothing but the loop, with or without a default system prompt.
  bool read_plain_chatml(std::string_view text) {
    constexpr std::string_view loop = "{% for message in messages %}";
    constexpr std::string_view system =
        "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n";
    constexpr std::string_view end = "<|im_end|>\n' }}{% endif %}";
    constexpr std::string_view turns =
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    if (!text.starts_with(loop) || !text.ends_with(turns)) return false;
    text = text.substr(loop.size(), text.size() - loop.size() - turns.size());
    if (text.empty()) return true;
    if (!text.starts_with(system) || !text.ends_with(end)) return false;
    text = text.substr(system.size(), text.size() - system.size() - end.size());
    if (!is_plain(text)) return false;
    default_system_ = text;
    return true;
  }

  // Qwen2.5: the default system prompt is in the branch without tools.
  bool read_qwen2_5(std::string_view text, std::string_view code) {
    constexpr std::string_view begin = "'<|im_start|>system\n", end = "<|im_end|>\n'";
    if (code.find("think") != std::string_view::npos ||
        !has_all(code, {"{%else%}{%ifmessages[0].role=='system'%}{{'<|im_start|>system\\n'+"
                        "messages[0].content+'<|im_end|>\\n'}}{%else%}{{'<|im_start|>system\\n",
                        "(message.role=='user')or(message.role=='system'andnotloop.first)or("
                        "message.role=='assistant'andnotmessage.tool_calls)%}{{'<|im_start|>'+"
                        "message.role+'\\n'+message.content+'<|im_end|>'+'\\n'}}",
                        "{%ifadd_generation_prompt%}{{'<|im_start|>assistant\\n'}}{%endif%}"})) {
      return false;
    }
    // The last of the literals that begin a system turn and close it.
    std::size_t const at = text.rfind(begin);
    if (at == std::string_view::npos) return false;
    std::string_view const rest = text.substr(at + begin.size());
    std::string_view const literal = rest.substr(0, rest.find(end));
    if (literal.size() == rest.size() || !is_plain(literal)) return false;
    default_system_ = literal;
    return true;
  }

  bool read_qwen3(std::string_view code) {
    family_ = chat_family::qwen3;
    return has_all(
        code,
        {"{%else%}{%ifmessages[0].role=='system'%}{{'<|im_start|>system\\n'+messages[0]"
         ".content+'<|im_end|>\\n'}}{%endif%}{%endif%}",
         "not(message.content.startswith('<tool_response>')and"
         "message.content.endswith('</tool_response>'))",
         "{%ifloop.index0>ns.last_query_index%}{%ifloop.lastor"
         "(notloop.lastandreasoning_content)%}{{'<|im_start|>'+message.role+'\\n<think>"
         "\\n'+reasoning_content.strip('\\n')+'\\n</think>\\n\\n'+content.lstrip('\\n')}}",
         "{%ifadd_generation_prompt%}{{'<|im_start|>assistant\\n'}}{%ifenable_thinkingis"
         "definedandenable_thinkingisfalse%}{{'<think>\\n\\n</think>\\n\\n'}}{%endif%}{%endif%}"});
  }

  bool read_llama3(std::string_view text) {
    family_ = chat_family::llama3;
    return text ==
           "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
           "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] "
           "| trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content "
           "%}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
           "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
  }

  bool read_llama3_date(std::string_view code) {
    family_ = chat_family::llama3_date;
    return has_all(
        code,
        {"{{bos_token}}",
         "{%ifmessages[0].role=='system'%}{%setsystem_message=messages[0].content|trim%}"
         "{%setmessages=messages[1:]%}{%else%}{%setsystem_message=''%}{%endif%}",
         "{{'<|start_header_id|>system<|end_header_id|>\\n\\n'}}",
         "{{'CuttingKnowledgeDate:December2023\\n'}}{{'TodayDate:'+date_string+'\\n\\n'}}",
         "{{system_message}}{{'<|eot_id|>'}}",
         "{{'<|start_header_id|>'+message.role+'<|end_header_id|>\\n\\n'+message.content|trim+"
         "'<|eot_id|>'}}",
         "{%ifadd_generation_prompt%}{{'<|start_header_id|>assistant<|end_header_id|>\\n\\n'}}"
         "{%endif%}"});
  }

  chat_family family_ = chat_family::chatml;
  std::optional<std::string> default_system_;
};

}  // namespace decoder
