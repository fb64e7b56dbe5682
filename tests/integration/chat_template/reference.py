"""Chat templates rendered by Python's jinja2, in the environment that transformers' apply_chat_template makes for them."""

import datetime
import json

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

# 14 March 2026, 15:09:26, where the tests' clock stands.
NOW = datetime.datetime(2026, 3, 14, 15, 9, 26, tzinfo=datetime.UTC)


class _Generation(Extension):
    """{% generation %} marks what the model said; its text is rendered as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(form):
    return NOW.replace(tzinfo=None).strftime(form)


class Reference:
    def __init__(self):
        self.parsed = {}
        self.environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                         extensions=[_Generation, loopcontrols])
        self.environment.filters["tojson"] = _tojson
        self.environment.globals["raise_exception"] = _raise_exception
        self.environment.globals["strftime_now"] = _strftime_now

    def render(self, source: str, case: dict) -> dict:
        """{"text": ...} or {"error": ..., "raised": whether the template itself refused}. Parses a template once."""
        try:
            if source not in self.parsed:
                self.parsed = {source: self.environment.from_string(source)}
            return {"text": self.parsed[source].render(messages=case["messages"], tools=case["tools"],
                                            add_generation_prompt=case["add_generation_prompt"],
                                            **{"documents": None, **case["tokens"], **case["variables"]})}
        except Exception as error:  # whatever Python makes of a template's mistake
            return {"error": str(error), "raised": type(error) is jinja2.exceptions.TemplateError}
