#!/usr/bin/env python3
"""Records what Jinja makes of chat templates, in the environment that transformers renders them in.

    python3 -m venv /tmp/jinja && /tmp/jinja/bin/pip install jinja2==3.1.6
    /tmp/jinja/bin/python tests/recordings/chat_template/make.py

Writes recordings.json: [{"name", "template", "cases": [{"messages", "tools" or not, "add_generation_prompt", "output" or "error"}]}].
The templates are written here in the manner of the model families they are named after, one feature or more each.
"""

import json
from pathlib import Path

from jinja2 import TemplateError, UndefinedError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).parent
BOS, EOS = "<s>", "</s>"

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{#- A system message comes first, if there is one. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one tool call at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
{{- user_messages|length }}
"""

PHI = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{'<|user|>
' + message['content'] + '<|end|>
'}}
{% elif message['role'] == 'assistant' %}
{{'<|assistant|>
' + message['content'] + '<|end|>
'}}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}
"""

FEATURES = {
    "white space": "a\n  {% if true %}  \n  b  \n  {%- endif -%}  \n  c\n{%+ if true +%}\nd{% endif %}\n   {# note #}\n  {#- note -#}  e\n  {{ 1 }}  \n",
    "trailing newline": "x\n\n",
    "arithmetic": "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 * 3 + 4 }} {{ 2 + 3 * 4 }} {{ (2 + 3) * 4 }} {{ 1.5 + 1 }} {{ 10 / 5 }} {{ 'ab' * 3 }} {{ -3 }} {{ 1 - -1 }} {{ 7.5 // 2 }} {{ 'a' ~ 1 ~ none ~ 2.0 }}",
    "comparison": "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ 'a' in 'cat' }} {{ 'a' not in ['b'] }} {{ none == none }} {{ true == 1 }} {{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1} }} {{ x == none }} {{ x is defined }} {{ not x }} {{ 2 >= 2 }} {{ 1 != 2 }}",
    "logic": "{{ none or 'b' }} {{ 'a' and 'b' }} {{ '' or 0 }} {{ not '' and not [] }} {{ 'y' if 1 else 'n' }} {{ 'y' if 0 }} {{ 'a' if 0 else 'b' if 0 else 'c' }}",
    "printing": "{{ none }} {{ true }} {{ 1.0 }} {{ [1, 'a', none, 2.5] }} {{ {'k': \"it's\", 'q': '\"'} }} {{ undefined_name }} {{ ['\\n'] }} {{ 1e0 if false else 0.1 }}",
    "strings": "{{ ' a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a,b,c'.split(',') }}|{{ ' a  b '.split() }}|{{ 'a-b-c'.split('-', 1) }}|{{ 'a-b-c'.rsplit('-', 1) }}|{{ 'Abc'.upper() }}|{{ 'ABC'.lower() }}|{{ 'ab cd'.title() }}|{{ 'aB'.capitalize() }}|{{ 'aba'.replace('a', 'x') }}|{{ 'abc'.startswith('ab') }}|{{ 'abc'.endswith(('x', 'c')) }}|{{ 'abcb'.find('b') }}|{{ 'abcb'.rfind('b') }}|{{ 'aXbXc'.count('X') }}|{{ ', '.join(['a', 'b']) }}|{{ 'a\\nb\\r\\nc'.splitlines() }}|{{ '12'.isdigit() }}|{{ 'prefix-x'.removeprefix('prefix-') }}",
    "slices": "{{ 'héllo'[1:3] }} {{ 'abc'[::-1] }} {{ [1, 2, 3, 4][1:] }} {{ [1, 2, 3][:-1] }} {{ [1, 2, 3, 4][::2] }} {{ [1, 2, 3][-2:] }} {{ 'abc'[-1] }} {{ [1, 2, 3][5:] }} {{ 'abcdef'[4:1:-1] }} {{ [1][3] }} {{ 'héllo'|length }}",
    "filters": "{{ ' x '|trim }}|{{ 'a'|upper }}|{{ [1, 2]|length }}|{{ ['a', 'b']|join('-') }}|{{ x|default('d') }}|{{ ''|default('d', true) }}|{{ none|d('e') }}|{{ [3, 1, 2]|sort }}|{{ [3, 1, 2]|sort(reverse=true)|first }}|{{ [1, 2, 3]|last }}|{{ 'abc'|list }}|{{ '3'|int + 1 }}|{{ 'x'|int }}|{{ '2.5'|float }}|{{ -3|abs }}|{{ 3.7|int }}|{{ 'a\\nb'|indent(2) }}|{{ 'a\\nb'|indent(2, true) }}|{{ 'aXb'|replace('X', '-') }}|{{ [1, 1, 2]|unique|list }}|{{ 'abc'|reverse }}|{{ {'b': 1, 'a': 2}|dictsort|map('join', '=')|list }}|{{ {'a': 1}|items|map('join', '=')|list }}|{{ 'hello world'|title }}|{{ 5|string + '!' }}",
    "tojson": "{{ {'a': [1, 2.5, none, true], 'b': {'c': 'é\"\\n<>&'}}|tojson }} {{ []|tojson }} {{ {}|tojson }} {{ [1, {'a': []}]|tojson(indent=2) }} {{ 'x'|tojson }}",
    "map and select": "{{ messages|map(attribute='role')|join(',') }} {{ ['a', 'b']|map('upper')|list }} {{ [1, 2, 3, 4]|select('odd')|list }} {{ [1, 2, 3]|reject('gt', 1)|list }} {{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list|length }} {{ messages|rejectattr('role', 'in', ['user'])|list|length }} {{ [0, 1, '']|select|list }}",
    "tests": "{{ 1 is number }} {{ 'a' is string }} {{ [] is iterable }} {{ {} is mapping }} {{ none is none }} {{ 1 is odd }} {{ 2 is even }} {{ 4 is divisibleby 2 }} {{ 1 is not none }} {{ true is boolean }} {{ 1 is integer }} {{ 1.0 is float }} {{ 'a' is in ['a'] }} {{ 1 is eq 1 }} {{ x is undefined }} {{ true is true }} {{ 1 is true }} {{ [] is sequence }} {{ 'a' is mapping }}",
    "loops": "{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }};{% endfor %}{% for x in [] %}{% else %}none{% endfor %}{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }} {% endfor %}{% for i in range(10) if i % 2 %}{{ i }}{{ loop.index }} {% endfor %}{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}{% for c in 'añ' %}[{{ c }}]{% endfor %}{% for k in {'z': 1} %}{{ k }}{% endfor %}{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}",
    "scopes": "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 5 %}{% endif %}{{ x }}{% set ns = namespace(n=0) %}{% for i in [1, 2, 3] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set block %}B{{ x }}{% endset %}{{ block }}{{ block|length }}",
    "macros": "{% macro field(name, value='d', sep=': ') %}{{ name }}{{ sep }}{{ value }};{% endmacro %}{{ field('a') }}{{ field('b', 2) }}{{ field('c', sep='=') }}{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice(field('z')) }}{{ twice(twice('q'))|length }}{% macro fact(n) %}{% if n > 1 %}{{ n }}*{{ fact(n - 1) }}{% else %}1{% endif %}{% endmacro %}{{ fact(4) }}",
    "dicts": "{% set d = {'a': 1, 'b': {'c': [10, 20]}} %}{{ d.a }} {{ d['b'].c[1] }} {{ d.get('x', 'none') }} {{ d.get('a') }} {{ d.missing is defined }} {{ 'a' in d }} {{ d|length }} {{ d.keys()|list }} {{ d.b.c.0 }} {{ dict(x=1, y='z') }}",
    "escapes": "{{ 'a\\tb\\\\n\\'q\\'' }}{{ \"\\u00e9\\x41\" }}{{ 'a' 'b' }}{{ '{{' }}{{ '%}' }}",
    "unicode": "{{ '\u3000 x\u00a0'.strip() }}|{{ 'é中😀'|list }}|{{ 'é中😀'[1] }}|{{ 'naïve'|length }}|{{ '😀' ~ 'é' }}",
    "error: raise": "{{ raise_exception('no ' ~ 'way') }}",
    "error: undefined": "{{ a.b.c }}",
    "error: concatenation": "{{ 'a' + 1 }}",
    "error: syntax": "{% if x %}a",
    "error: zero": "{{ 1 // 0 }}",
    "error: undefined sum": "{{ 'a' + nothing }}",
    "error: append": "{% set l = [] %}{{ l.append(1) }}",
}

CHATS = [
    [{"role": "user", "content": "Hello, how are you?"}],
    [{"role": "system", "content": "  Be brief. "}, {"role": "user", "content": "Hi\n"}],
    [{"role": "user", "content": " 1+1? "}, {"role": "assistant", "content": "2 "}, {"role": "user", "content": "你好 😀 \"quoted\" <b>"}],
    [{"role": "system", "content": "S"}, {"role": "user", "content": "A"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nB"},
     {"role": "user", "content": "C"}, {"role": "assistant", "content": "D"}],
    [{"role": "assistant", "content": "I go first"}],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": "Weather?"},
     {"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": {"city": "Zürich", "days": 2}, "name": "weather"}}]},
     {"role": "tool", "content": "sunny"}],
]


TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "The weather of a “city”", "parameters": {
        "type": "object", "required": ["city"], "properties": {"days": {"type": "integer", "minimum": 1}, "city": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "now"}},
]


def environment():
    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def render(env, source, messages, add_generation_prompt, tools=None):
    try:
        text = env.from_string(source).render(messages=messages, add_generation_prompt=add_generation_prompt, bos_token=BOS,
                                              eos_token=EOS, tools=tools, documents=None)
        return {"output": text}
    except (TemplateError, UndefinedError, TypeError, ZeroDivisionError) as error:
        return {"error": str(error)}


def main():
    env = environment()
    recordings = []
    families = {"smollm2": SMOLLM2, "llama3": LLAMA3, "qwen": QWEN, "gemma": GEMMA, "mistral": MISTRAL, "phi": PHI}
    for name, source in families.items():
        cases = [{"messages": chat, "add_generation_prompt": add, **render(env, source, chat, add)}
                 for chat in CHATS for add in (True, False)]
        cases += [{"messages": chat, "tools": TOOLS, "add_generation_prompt": True, **render(env, source, chat, True, TOOLS)}
                  for chat in (CHATS[1], CHATS[-1])]
        recordings.append({"name": name, "template": source, "cases": cases})
    for name, source in FEATURES.items():
        case = {"messages": CHATS[3], "add_generation_prompt": True}
        recordings.append({"name": name, "template": source, "cases": [{**case, **render(env, source, CHATS[3], True)}]})
    out = HERE / "recordings.json"
    out.write_text(json.dumps(recordings, ensure_ascii=True, indent=0) + "\n")
    print(f"{out}: {sum(len(r['cases']) for r in recordings)} renderings of {len(recordings)} templates")


if __name__ == "__main__":
    main()
