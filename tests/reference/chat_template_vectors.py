#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Records how Hugging Face transformers renders conversations by chat templates of the families
that examples/decoder/chat_template.hpp knows.

The templates below are those of the models, but for the branches that need tools, which only
raise. With a directory of *.jinja files as its argument, the script takes the templates in it
instead: that is how the models' own templates are checked, which are not kept here.

Run: python3 tests/reference/chat_template_vectors.py > tests/reference/chat_template_vectors.json
Made with transformers 5.24.
"""
import json
import pathlib
import sys

from transformers.utils.chat_template_utils import render_jinja_template

CHATML = (r"{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
          r"{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
CHATML_SYSTEM = (r"{%% for message in messages %%}{%% if loop.first and "
                 r"messages[0]['role'] != 'system' %%}"
                 r"{{ '<|im_start|>system\n%s<|im_end|>\n' }}{%% endif %%}")
QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
TEMPLATES = {
    "chatml": "{% for message in messages %}" + CHATML,
    "smollm2": CHATML_SYSTEM % ("You are a helpful AI assistant named SmolLM, trained by "
                                "Hugging Face") + CHATML,
    "qwen2": CHATML_SYSTEM % "You are a helpful assistant." + CHATML,
    "qwen2_5": r"""{%- if tools %}
    {{- raise_exception('tools') }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\n""" + QWEN + r"""<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or
           (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
""",
    "qwen3": r"""{%- if tools %}
    {{- raise_exception('tools') }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and
           not(message.content.startswith('<tool_response>') and
               message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
            {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\n')
                                        .split('<think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') +
                    '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
""",
    "llama3": r"{% set loop_messages = messages %}{% for message in loop_messages %}"
              r"{% set content = '<|start_header_id|>' + message['role'] + "
              r"'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
              r"{% if loop.index0 == 0 %}"
              r"{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
              r"{% if add_generation_prompt %}"
              r"{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "llama3_2": r"""{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content']
        | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
""",
}
THOUGHT = "<think>\nThree and four.\n</think>\n\n7"
CONVERSATIONS = [
    [("user", "What is 3 + 4?")],
    [("system", "Be brief."), ("user", " \n\u3000Se\u00f1or,\n\"what\" is {{ 3 }}?\t\x1f ")],
    [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
    [("user", "a"), ("assistant", THOUGHT), ("user", "and 5 + 6?"), ("assistant", THOUGHT)],
    [("user", "a"), ("assistant", THOUGHT), ("user", "<tool_response>\n7\n</tool_response>"),
     ("assistant", "\n\nx</think>y<think>\n\nz</think>\n\n\n7\n"), ("assistant", "no thought"),
     ("assistant", "\n\nlast")],
    [("assistant", "Hello"), ("assistant", "<think></think>"), ("user", "")],
]


def main():
    templates = TEMPLATES
    if sys.argv[1:]:
        files = sorted(pathlib.Path(sys.argv[1]).glob("*.jinja"))
        templates = {file.stem: file.read_text() for file in files}
    cases = []
    for name, template in templates.items():
        for messages in CONVERSATIONS:
            for generation, thinking in ((True, True), (True, False), (False, True)):
                conversation = [{"role": role, "content": content} for role, content in messages]
                rendered, _ = render_jinja_template(
                    conversations=[conversation], chat_template=template,
                    add_generation_prompt=generation, enable_thinking=thinking,
                    bos_token="<|begin_of_text|>", date_string="25 Nov 2026")
                cases.append({"template": name, "messages": messages, "generation": generation,
                              "thinking": thinking, "text": rendered[0]})
    print(json.dumps({"templates": templates, "cases": cases}, separators=(",", ":")))


if __name__ == "__main__":
    main()
