#!/usr/bin/env python3
"""Records what Jinja makes of each feature that chat templates use, in the environment that transformers renders them in.

    $(hack/setup --print python) tests/recordings/chat_template/make.py

Writes recordings.json: [{"name", "template", "messages", "output" or "error"}]. Whole templates, those of real models, are compared
with Jinja by tests/integration/chat_template.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "integration" / "chat_template"))
from reference import Reference  # noqa: E402

FEATURES = {
    "white space": "a\n  {% if true %}  \n  b  \n  {%- endif -%}  \n  c\n{%+ if true +%}\nd{% endif %}\n   {# note #}\n  {#- note -#}  e\n  {{ 1 }}  \n",
    "white space of all kinds": "a\n\t {% if true %}\tb\n\u00a0\t{# c #}\n\x0b\u3000{% endif %}d \u00a0\t{%- if true -%}\u2003\n\te{% endif %}\n\t{{ 1 }}\t\u00a0{{- 2 -}}\u00a0 f",
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
    "json styles": "{{ {'b': [1, {}], 'a': 'é'}|tojson(ensure_ascii=true) }} {{ {'b': [1, []], 'a': 2}|tojson(indent=4) }} {{ {'b': 1, 'a': [2, 3]}|tojson(separators=(',', ':')) }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ [1, {'a': {}}]|tojson(indent='\t') }} {{ {2: 'x'}|tojson }} {{ (1, 'a')|tojson }}",
    "tuples": "{{ (1, 'a') }} {{ (1,) }} {{ () }} {{ {'a': 1}.items()|list }} {{ (1, 2) == [1, 2] }} {{ (1, 2) + (3,) }} {{ (1, 2, 3)[1:] }} {{ 'abc'.startswith(('x', 'a')) }} {% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}{{ [1, (2, [3])] }}",
    "integers as keys": "{% set d = {0: 'a', 512: 'b', 64: 'c'} %}{{ d }} {{ d[512] }} {{ d.get(64) }} {{ d.get(1, 'none') }} {{ 0 in d }} {{ d|dictsort }} {% for k, v in d.items() %}{{ k + 1 }}{{ v }} {% endfor %}{{ d.keys()|list }} {{ {'a': 1, 'b': 2, 'a': 3} }}",
    "iterators": "{{ 'yes' if [1]|select('gt', 2) else 'no' }} {{ none|selectattr('a')|list }} {{ none|map('upper')|list }} {{ ''|reject('odd')|list }} {{ [1, 2]|map('string')|join }} {{ [3, 1]|map('abs')|list|sort }} {{ [2, 1]|reverse|list }} {{ ['b', 'A', 'a']|unique|list }} {{ ['b', 'A', 'a']|unique(true)|list }}",
    "more filters": "{{ [3, 1, 2]|min }} {{ ['b', 'A']|min }} {{ ['b', 'A']|max(true) }} {{ []|max is defined }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 7|round }} {{ 2.1|round(0, 'ceil') }} {{ 2.19|round(1, 'floor') }} {{ '%s-%02d' % ('a', 5) }} {{ '%.1f%%' % 2.25 }} {{ '%s is %s'|format('a', none) }} {{ '<{}|{}>'.format('x', 1) }} {{ '{1}{0}{n}{{}}'.format('a', 'b', n=2) }} {{ \"it's a-b (c) d\"|title }} {{ \"it's a-b\".title() }} {{ 'ab'|replace('', '-') }} {{ 'aaa'|replace('a', 'b', 2) }} {{ 3|replace(3, 4) }} {{ 'a\n\nb'|indent(2, blank=true) }} {{ 'a\nb'|indent('> ', true) }} {{ ' 7 '|int }} {{ '0x1f'|int(5) }} {{ '1e3'|int }} {{ 'nan'|float }} {{ ['B', 'a']|sort(case_sensitive=true) }} {{ {'b': 1, 'a': 2}|dictsort(by='value') }}",
    "more methods": "{{ 'abcabc'.index('c') }} {{ 'abcabc'.rindex('c') }} {{ ' a b  c '.split(none, 1) }} {{ ['a', 'b', 'a'].count('a') }} {{ ['a', 'b'].index('b') }} {{ 'ab'.isalpha() }} {{ {'a': 1}.copy() }} {{ 'a\x0bb\u2028c\x1cd'.splitlines() }} {{ 'aa'.replace('a', 'b', 1) }} {{ {'update': 1}.update is defined }} {{ {'update': 1}['update'] }} {{ 'x'.format is defined }}",
    "html marks": "{{ '<a>'|safe }} {{ ('<a>'|safe) + '<b>&\"' }} {{ '<b>' + ('<a>'|safe) }} {{ '<b>' ~ ('<a>'|safe) ~ '<c>' }} {{ ['<b>', '<a>'|safe]|join('<') }}",
    "call and filter blocks": "{% macro list(items, mark='*') %}{% for i in items %}{{ mark }}{{ caller(i) }};{% endfor %}{% endmacro %}{% set y = 'o' %}{% call(x) list([1, 2]) %}<{{ x }}{{ y }}>{% endcall %}{% call(x) list(['a'], mark='-') %}b{% endcall %}{% filter upper %}a{% if true %}b{% endif %}{{ y }}{% endfilter %}{% set z | trim | upper %}  q {{ y }} {% endset %}[{{ z }}]{% set ns = namespace() %}{% set ns.text %}in{{ y }}{% endset %}{{ ns.text }}",
    "scopes of blocks": "{% set x = 1 %}{% set block %}{% set x = 2 %}{{ x }}{% endset %}{{ block }}{{ x }}{% macro outer() %}{% set x = 3 %}{% macro inner() %}{{ x }}{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}{{ x }}{% for i in [7] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}{% for i in [] %}{% else %}{% set x = 9 %}{{ x }}{% endfor %}{{ x }}{% macro late() %}{{ v }}{% endmacro %}{% set v = 'w' %}{{ late() }}",
    "raw": "a {% raw %} {{ b }} {% if %} {# c #} {% endraw %} d\n  {%- raw -%}  x  {%- endraw +%}\n e {% raw %}\nz{% endraw %}\nf",
    "splat": "{% macro m(a, b='x') %}{{ a }}{{ b }};{% endmacro %}{% set ms = [m, m] %}{{ ms[1](*[1, 2]) }}{{ m(*['q']) }}{{ m(1, *[2]) }}",
    "made dicts": "{{ dict([('a', 1), ('b', 2)]) }} {{ dict({'a': 1}, a=2) }} {{ dict.from_keys([('a', 1)]) }} {{ namespace({'a': 5}).a }}",
    "time": "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %B %Y, %H:%M:%S %j %a') }} [{{ strftime_now('') }}]",
    "repr": "{{ ['é\u00a0\u200b\u3000\U0001f600\x07', 'it\\'s', \"a\\\"b'\"] }} {{ [1.0, 1e16, 1e-5, 123456789.125, true, none] }}",
    "error: macro arguments": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=1) }}",
    "error: too many arguments": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "error: length of an iterator": "{{ [1]|map('string')|length }}",
    "error: index": "{{ 'abc'.index('x') }}",
    "error: two dicts": "{{ dict({'a': 1}, {'b': 2}) }}",
    "error: list to startswith": "{{ 'a'.startswith(['a']) }}",
    "error: tuple and list": "{{ (1,) + [2] }}",
    "error: format": "{{ '%s' % (1, 2) }}",
    "error: order": "{{ [1, 'a']|sort }}",
}

MESSAGES = [{"role": "system", "content": "S"}, {"role": "user", "content": "A"},
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nB"}, {"role": "user", "content": "C"},
            {"role": "assistant", "content": "D"}]


def main():
    reference = Reference()
    case = {"messages": MESSAGES, "tools": None, "add_generation_prompt": True, "tokens": {"bos_token": "<s>", "eos_token": "</s>"},
            "variables": {}}
    recordings = []
    for name, source in FEATURES.items():
        result = reference.render(source, case)
        if name.startswith("error") == ("text" in result):
            raise SystemExit(f"{name}: {result}")
        recordings.append({"name": name, "template": source, "messages": MESSAGES,
                           **({"output": result["text"]} if "text" in result else {"error": result["error"]})})
    out = HERE / "recordings.json"
    out.write_text(json.dumps(recordings, ensure_ascii=True, indent=0) + "\n")
    print(f"{out}: {len(recordings)} templates")


if __name__ == "__main__":
    main()
