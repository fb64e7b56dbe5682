"""Tool calls, with the official client and the real model. SmolLM2 seldom calls by itself: what is tested of that is the format."""

import json

import openai
import pytest

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather of a city.", "parameters": {
        "type": "object", "additionalProperties": False, "required": ["city", "unit"],
        "properties": {"city": {"type": "string", "maxLength": 40}, "unit": {"enum": ["celsius", "fahrenheit"]}}}}}
ADD = {"type": "function", "function": {
    "name": "add", "description": "Add two numbers.", "parameters": {
        "type": "object", "additionalProperties": False, "required": ["a", "b"],
        "properties": {"a": {"type": "integer", "minimum": -999, "maximum": 999}, "b": {"type": "integer", "minimum": -999, "maximum": 999}}}}}
ASKED = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]


def check(call):
    """A call as its schema says."""
    assert call.type == "function" and call.id.startswith("call_")
    arguments = json.loads(call.function.arguments)
    if call.function.name == "get_weather":
        assert arguments.keys() == {"city", "unit"} and arguments["unit"] in ("celsius", "fahrenheit")
    else:
        assert call.function.name == "add" and all(isinstance(arguments[name], int) for name in ("a", "b"))


def test_a_call_that_is_required_is_made_and_keeps_to_its_schema(client, smollm2):
    seen = set()
    for seed in range(4):
        reply = client.chat.completions.create(model=smollm2.name, messages=ASKED, tools=[WEATHER, ADD], tool_choice="required",
                                               temperature=1.5, seed=seed, max_tokens=400)
        choice = reply.choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.content is None
        assert 1 <= len(choice.message.tool_calls) <= 8
        for call in choice.message.tool_calls:
            check(call)
            seen.add(call.id)
    assert len(seen) >= 4, "every call has an id of its own"


def test_a_named_function_is_called_once(client, smollm2):
    reply = client.chat.completions.create(model=smollm2.name, messages=ASKED, tools=[WEATHER, ADD], temperature=0, max_tokens=200,
                                           tool_choice={"type": "function", "function": {"name": "add"}})
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name == "add"
    check(call)


def test_streamed_calls_are_the_same_in_pieces(client, smollm2):
    arguments = dict(model=smollm2.name, messages=ASKED, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False,
                     temperature=0, max_tokens=200)
    whole = client.chat.completions.create(**arguments).choices[0]
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**arguments, stream=True)]
    deltas = [delta for chunk in chunks for delta in chunk.delta.tool_calls or []]
    assert deltas[0].function.name == "get_weather" and deltas[0].id.startswith("call_") and deltas[0].type == "function"
    assert all(delta.index == 0 and delta.function.name is None for delta in deltas[1:])
    assert len(deltas) > 5, "the arguments come as they are made"
    assert "".join(delta.function.arguments for delta in deltas) == whole.message.tool_calls[0].function.arguments
    assert not any(chunk.delta.content for chunk in chunks)
    assert chunks[-1].finish_reason == whole.finish_reason == "tool_calls"


def test_the_clients_own_helper_reads_a_streamed_call(client, smollm2):
    with client.chat.completions.stream(model=smollm2.name, messages=ASKED, tools=[WEATHER], tool_choice="required",
                                        parallel_tool_calls=False, temperature=0, max_tokens=200) as stream:
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    check(call)


def test_what_a_function_returned_is_part_of_the_next_prompt(client, smollm2):
    first = client.chat.completions.create(model=smollm2.name, messages=ASKED, tools=[WEATHER], tool_choice="required",
                                           parallel_tool_calls=False, temperature=0, max_tokens=200)
    message = first.choices[0].message
    messages = [*ASKED, message.model_dump(exclude_none=True),
                {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "It is 31 degrees and sunny."}]
    reply = client.chat.completions.create(model=smollm2.name, messages=messages, tools=[WEATHER], temperature=0, max_tokens=40)
    assert reply.choices[0].message.content
    alone = smollm2.post("/tokenize", {"model": smollm2.name, "messages": ASKED}).json()["count"]
    described = smollm2.post("/tokenize", {"model": smollm2.name, "messages": ASKED, "tools": [WEATHER]}).json()["count"]
    answered = smollm2.post("/tokenize", {"model": smollm2.name, "messages": messages, "tools": [WEATHER]}).json()
    assert alone + 60 < described < answered["count"] == reply.usage.prompt_tokens
    text = smollm2.post("/detokenize", {"model": smollm2.name, "tokens": answered["tokens"]}).json()["prompt"]
    assert "<tool_response>\nIt is 31 degrees and sunny.\n</tool_response>" in text and '"name": "get_weather"' in text


def test_where_no_tool_may_be_called_the_prompt_names_none(client, smollm2):
    arguments = dict(model=smollm2.name, messages=ASKED, temperature=0, max_tokens=20)
    plain = client.chat.completions.create(**arguments)
    none = client.chat.completions.create(**arguments, tools=[WEATHER], tool_choice="none")
    assert none.choices[0].message == plain.choices[0].message and none.usage.prompt_tokens == plain.usage.prompt_tokens


def test_a_call_among_many_tools_with_long_descriptions(client, smollm2):
    many = [{"type": "function", "function": {"name": f"tool_{i}", "description": "x ::= y | [z] {0,1}: " * 6, "parameters": {
        "type": "object", "properties": {"a": {"type": "string", "maxLength": 5, "description": "(what?) * + : !"}, "b": {"type": "boolean"}},
        "required": ["a", "b"], "additionalProperties": False}}} for i in range(128)]
    many[5]["function"]["parameters"] = {}
    reply = client.chat.completions.create(model=smollm2.name, messages=ASKED, tools=many[:8], tool_choice="required", temperature=0,
                                           parallel_tool_calls=False, max_tokens=120)
    (call,) = reply.choices[0].message.tool_calls
    assert isinstance(json.loads(call.function.arguments), dict)
    # All of them are more than the context holds, but not more than the grammar may be.
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=smollm2.name, messages=ASKED, tools=many, tool_choice="required", max_tokens=5)
    assert caught.value.code == "context_length_exceeded", caught.value.message


def test_bad_tools_are_refused_with_their_place(client, smollm2):
    bad = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "strange"}}}}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=smollm2.name, messages=ASKED, tools=[bad], tool_choice="required", max_tokens=5)
    assert caught.value.param.startswith("tools") and "strange" in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=smollm2.name, messages=ASKED, tools=[WEATHER, WEATHER], max_tokens=5)
    assert caught.value.param == "tools[1].function.name"
