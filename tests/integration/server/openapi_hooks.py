"""What the schemas of /openapi.json cannot say, for schemathesis: test_openapi.py runs it with SCHEMATHESIS_HOOKS naming this file.

A request that is right by its schema must be taken (the check positive_data_acceptance), but for the reasons below. Where one of
them is certain, the request must be refused: the check `refused_for_what_no_schema_says`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

SCHEMAS = json.loads(Path("openapi.json").read_text())["components"]["schemas"]
CONTEXT = SCHEMAS["max_tokens"]["maximum"]
TEMPLATE_TOKENS = 400  # of a chat: what its template and the description of tools add, at most


LENGTHS = {"/v1/completions": ["max_tokens"], "/v1/responses": ["max_output_tokens"],
           "/v1/chat/completions": ["max_tokens", "max_completion_tokens"]}


class Reason(NamedTuple):
    param: str             # what the error names, without indices: it, or something in it
    certain: bool = True   # else it may be a reason
    code: str = ""         # of the error, where it is always the same


def is_example(schema: str, value) -> bool:
    return value in SCHEMAS[schema]["examples"]


def formats(body) -> Iterator[tuple[str, str, object]]:
    """Each that says what the answer must look like: the parameter's path, its schema's name, its value."""
    for name in ("response_format", "text"):
        value = body.get(name)
        if name == "text":
            name, value = "text.format", (value or {}).get("format")
        inner = "json_schema.schema" if name == "response_format" else "schema"
        if value and value["type"] == "json_object":
            yield name, "", None
        elif value and value["type"] == "json_schema":
            holder = value["json_schema"] if name == "response_format" else value
            yield f"{name}.{inner}", "json_schema", holder["schema"]
    names = {"json": "schema_or_text", "regex": "regex", "choice": "choices", "grammar": "grammar"}
    for prefix, holder in (("structured_outputs.", body.get("structured_outputs") or {}), ("guided_", body)):
        for member, schema in names.items():
            value = holder.get(member if holder is not body else prefix + member)
            if value is not None:
                yield prefix + member, schema, value
    if (body.get("structured_outputs") or {}).get("json_object"):
        yield "structured_outputs.json_object", "", None


def of_formats(body) -> Iterator[Reason]:
    asked = list(formats(body))
    for param, schema, value in asked:
        if len(asked) > 1:
            yield Reason(param)
        # Languages of their own: what is not the document's example may be no sentence of one, or one of what is not supported.
        elif schema not in ("", "choices") and not is_example(schema, value):
            yield Reason(param, certain=False)


def functions(tools) -> list[dict]:
    return [tool.get("function", tool) for tool in tools or []]


def chosen(choice) -> list[str] | None:
    """The functions' names in a tool_choice; None where it is a word."""
    if not isinstance(choice, dict):
        return None
    if choice["type"] == "allowed_tools":
        return [one["name"] for one in functions(choice.get("allowed_tools", choice)["tools"])]
    return [functions([choice])[0]["name"]]


def requires_call(choice) -> bool:
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        return choice.get("allowed_tools", choice)["mode"] == "required"
    return isinstance(choice, dict) or choice == "required"


def of_tools(body) -> Iterator[Reason]:
    known, choice = functions(body.get("tools")), body.get("tool_choice")
    names = [function["name"] for function in known]
    if len(set(names)) < len(names):
        yield Reason("tools")  # whose names must differ
    for function in known:
        if function.get("parameters") is not None and not is_example("function_parameters", function["parameters"]):
            yield Reason("tools", certain=False)  # as formats are
    if not known and choice not in (None, "none", "auto"):
        yield Reason("tool_choice")
    if not set(chosen(choice) or []) <= set(names):
        yield Reason("tool_choice")
    if known and requires_call(choice):
        for param, *_ in formats(body):
            yield Reason(param)
    if known and choice != "none" and "message.output_text.logprobs" in (body.get("include") or []):
        yield Reason("include")


def no_object(text: str) -> bool:
    try:
        return bool(text) and not isinstance(json.loads(text), dict)
    except ValueError:
        return True


def of_messages(body) -> Iterator[Reason]:
    for message in body.get("messages") or []:
        for call in message.get("tool_calls") or []:
            if no_object(call["function"]["arguments"]):
                yield Reason("messages.tool_calls.function.arguments")


def of_input(items) -> Iterator[Reason]:
    calls = set()
    for item in items:
        if item.get("type") == "function_call":
            calls.add(item["call_id"])
            if no_object(item["arguments"]):
                yield Reason("input.arguments")
        if item.get("type") == "function_call_output" and item["call_id"] not in calls:
            yield Reason("input.call_id")
    if all(item.get("type") == "reasoning" for item in items):
        yield Reason("input")


def text_bytes(body) -> int:
    return sum(len(json.dumps(body[name])) for name in ("messages", "input", "instructions", "prompt", "tokens", "tools") if name in body)


def of_length(path, body) -> Iterator[Reason]:
    """What the context and one answer have room for. A token has at least a byte of JSON's text."""
    chat = path in ("/v1/chat/completions", "/v1/responses", "/tokenize")
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    most = max([body[name] for name in names if body.get(name) is not None], default=16)
    size = text_bytes(body) + (TEMPLATE_TOKENS if chat else 0)
    room = 4 * CONTEXT if path in ("/tokenize", "/detokenize") else CONTEXT
    if size + most > room:
        for param in ("messages", "input", "prompt", "tokens"):
            yield Reason(param, certain=False, code="context_length_exceeded")
    if most * (body.get("n") or 1) > 256:  # with log-probabilities, or as a stream that repeats its answer
        for param in (*names, "logprobs", "top_logprobs", "echo"):
            yield Reason(param, certain=False)


def of_tokens(path, body) -> Iterator[Reason]:
    asked = [body[name] for name in ("max_tokens", "max_completion_tokens", "max_output_tokens") if body.get(name) is not None]
    if len(set(asked)) > 1:
        yield Reason("max_tokens")
    completion = path == "/v1/completions"
    most = asked[0] if asked else 16 if completion else CONTEXT
    if (body.get("min_tokens") or 0) > most:
        yield Reason("min_tokens")
    elif not asked and (body.get("min_tokens") or 0) + text_bytes(body) + TEMPLATE_TOKENS > CONTEXT:
        yield Reason("min_tokens", certain=False)
    if asked == [0] and not body.get("echo"):
        yield Reason("max_tokens")


def of_generation(path, body) -> Iterator[Reason]:
    if body.get("stream_options") is not None and not body.get("stream"):
        yield Reason("stream_options")
    if body.get("best_of") is not None and body["best_of"] != (body.get("n") or 1):
        yield Reason("best_of")
    wanted = "message.output_text.logprobs" in (body.get("include") or []) if path == "/v1/responses" else body.get("logprobs")
    if (body.get("top_logprobs") or 0) > 0 and not wanted:
        yield Reason("top_logprobs")
    if path == "/v1/completions" and isinstance(body["prompt"], list) and not isinstance(body["prompt"][0], int):
        if len(body["prompt"]) * (body.get("n") or 1) > 128:
            yield Reason("n")
    yield from of_tokens(path, body)
    yield from of_formats(body)


def reasons(path: str, body) -> Iterator[Reason]:
    if not isinstance(body, dict):
        return
    yield from of_length(path, body)
    yield from of_tools(body)
    yield from of_messages(body)
    if path == "/v1/responses" and isinstance(body["input"], list):
        yield from of_input(body["input"])
    if path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
        yield from of_generation(path, body)


@schemathesis.hook
def map_case(_context, case):
    """Who names no length gets what is left of the context: that takes too long for so many requests."""
    if case.operation.path in LENGTHS and isinstance(case.body, dict) and all(case.body.get(name) is None for name in LENGTHS[case.operation.path]):
        case.body = {**case.body, LENGTHS[case.operation.path][0]: 2}
    return case


def is_positive(case) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


@schemathesis.hook
def filter_failure(_context, failure, case, response) -> bool:
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 400:
        return True
    error = response.json()["error"]
    named = re.sub(r"\[\d+\]", "", error["param"] or "")
    return not any((named == reason.param or named.startswith(reason.param + ".")) and reason.code in ("", error["code"])
                   for reason in reasons(case.operation.path, case.body))


@schemathesis.check
def refused_for_what_no_schema_says(_context, response, case) -> None:
    certain = [reason.param for reason in reasons(case.operation.path, case.body) if reason.certain] if is_positive(case) else []
    assert not certain or response.status_code == 400, f"{certain} cannot be taken, but the answer is {response.status_code}"
