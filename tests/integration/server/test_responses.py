"""OpenAI's Responses API, with the official client, unchanged, and the real model."""

import json
from typing import Literal

import openai
import pytest
import quern_serve
from openai.types import responses as types
from pydantic import BaseModel, TypeAdapter

QUESTION = "What is the capital of France? Answer in one sentence."
WEATHER = {"type": "function", "name": "get_weather", "description": "Get the weather of a city.", "strict": True, "parameters": {
    "type": "object", "additionalProperties": False, "required": ["city", "unit"],
    "properties": {"city": {"type": "string", "maxLength": 40}, "unit": {"enum": ["celsius", "fahrenheit"]}}}}
EVENT = TypeAdapter(types.ResponseStreamEvent)


def test_an_answer_is_the_chats_with_the_same_words(client, smollm2):
    reply = client.responses.create(model=smollm2.name, input=QUESTION, instructions="Be brief.", temperature=0, max_output_tokens=24,
                                    metadata={"a": "b"}, user="me", store=True)
    chat = client.chat.completions.create(model=smollm2.name, temperature=0, max_tokens=24, messages=[
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}])
    assert "Paris" in reply.output_text and reply.output_text == chat.choices[0].message.content
    assert reply.id.startswith("resp_") and reply.object == "response" and reply.model == smollm2.name
    assert reply.status == {"stop": "completed", "length": "incomplete"}[chat.choices[0].finish_reason]
    (message,) = reply.output
    assert message.id.startswith("msg_") and message.role == "assistant" and message.status == reply.status
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (
        chat.usage.prompt_tokens, chat.usage.completion_tokens, chat.usage.total_tokens)
    assert reply.usage.output_tokens_details.reasoning_tokens == 0
    assert (reply.instructions, reply.metadata, reply.user, reply.temperature, reply.top_p, reply.max_output_tokens) == (
        "Be brief.", {"a": "b"}, "me", 0, 1, 24)
    assert reply.error is None and reply.tools == [] and reply.tool_choice == "auto" and reply.text.format.type == "text"
    again = client.responses.create(model=smollm2.name, input=QUESTION, instructions="Be brief.", temperature=0, max_output_tokens=24)
    assert again.usage.input_tokens_details.cached_tokens > 0 and again.output_text == reply.output_text


def test_an_answer_that_is_cut_off_is_incomplete(client, smollm2):
    reply = client.responses.create(model=smollm2.name, input=QUESTION, temperature=0, max_output_tokens=3)
    assert reply.status == reply.output[0].status == "incomplete"
    assert reply.incomplete_details.reason == "max_output_tokens" and reply.usage.output_tokens == 3
    *_, last = client.responses.create(model=smollm2.name, input=QUESTION, temperature=0, max_output_tokens=3, stream=True)
    assert last.type == "response.incomplete" and last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.output_text == reply.output_text


def test_the_bytes_fit_the_clients_types(smollm2):
    body = {"model": smollm2.name, "input": QUESTION, "temperature": 0, "max_output_tokens": 30, "top_logprobs": 2,
            "include": ["message.output_text.logprobs"]}
    whole = smollm2.post("/v1/responses", body)
    assert whole.status_code == 200
    answer = types.Response.model_validate(whole.json(), strict=True)
    assert len(answer.output[0].content[0].logprobs) > 3 and len(answer.output[0].content[0].logprobs[0].top_logprobs) == 2
    streamed = smollm2.post("/v1/responses", {**body, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in streamed.text.split("\n") if line]
    names = [line.removeprefix("event: ") for line in lines[::2]]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[1::2]]
    assert [event["type"] for event in events] == names and "[DONE]" not in streamed.text
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        if "response" in event:
            event["response"]
        EVENT.validate_python(event, strict=True)
    assert names[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    assert names[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"]
    assert set(names[4:-4]) == {"response.output_text.delta"} and len(names) > 12
    assert "".join(event["delta"] for event in events[4:-4]) == answer.output_text == events[-4]["text"]
    assert [entry for event in events[4:-4] for entry in event["logprobs"]] == events[-4]["logprobs"]
    final = events[-1]["response"]
    assert final["usage"] == {**whole.json()["usage"], "input_tokens_details": final["usage"]["input_tokens_details"]}
    assert final["output"] == [events[-2]["item"]] and final["output"][0]["content"] == whole.json()["output"][0]["content"]


def test_the_clients_helper_puts_a_stream_together(client, smollm2):
    with client.responses.stream(model=smollm2.name, input=[{"role": "user", "content": QUESTION}], temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.output_text == text and "Paris" in text and final.status == "completed" and final.usage.output_tokens > 3


class City(BaseModel):
    city: Literal["Paris", "Rome"]
    million_inhabitants: int


def test_parse_gives_what_pydantic_asked_for(client, smollm2):
    reply = client.responses.parse(model=smollm2.name, input=QUESTION, text_format=City, temperature=0, max_output_tokens=80)
    assert isinstance(reply.output_parsed, City)
    with client.responses.stream(model=smollm2.name, input=QUESTION, text_format=City, temperature=0, max_output_tokens=80) as stream:
        assert stream.get_final_response().output_parsed == reply.output_parsed
    loose = client.responses.create(model=smollm2.name, input=QUESTION, text={"format": {"type": "json_object"}}, temperature=0,
                                    max_output_tokens=200, extra_body={"stop": "}\n"})
    assert loose.output_text.lstrip().startswith("{") and loose.text.format.type == "json_object"


def test_a_function_is_called_and_its_output_goes_into_the_next_input(client, smollm2):
    arguments = dict(model=smollm2.name, tools=[WEATHER], temperature=0, max_output_tokens=200)
    asked = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]
    first = client.responses.create(**arguments, input=asked, tool_choice={"type": "function", "name": "get_weather"})
    (call,) = first.output
    assert call.type == "function_call" and call.id.startswith("fc_") and call.call_id.startswith("call_")
    assert call.status == first.status == "completed" and json.loads(call.arguments).keys() == {"city", "unit"}
    assert first.tools[0].name == "get_weather" and first.tool_choice.name == "get_weather" and first.output_text == ""
    followed = asked + [item.model_dump(exclude_none=True) for item in first.output] + [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call_output", "call_id": call.call_id, "output": "It is 31 degrees and sunny."}]
    second = client.responses.create(**arguments, input=followed)
    chat = client.chat.completions.create(
        model=smollm2.name, temperature=0, max_tokens=200,
        tools=[{"type": "function", "function": {key: WEATHER[key] for key in ("name", "description", "strict", "parameters")}}],
        messages=[*asked, {"role": "assistant", "content": "", "tool_calls": [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}]},
            {"role": "tool", "tool_call_id": call.call_id, "content": "It is 31 degrees and sunny."}])
    assert second.output_text == chat.choices[0].message.content and second.usage.input_tokens == chat.usage.prompt_tokens
    assert second.usage.input_tokens > first.usage.input_tokens + 20


def test_streamed_calls_are_the_same_in_pieces(client, smollm2):
    arguments = dict(model=smollm2.name, input="The weather in Paris, in celsius?", tools=[WEATHER], tool_choice="required",
                     temperature=0, max_output_tokens=300)
    whole = client.responses.create(**arguments)
    with client.responses.stream(**arguments) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [(item.name, item.arguments) for item in final.output] == [(item.name, item.arguments) for item in whole.output]
    assert len({item.id for item in final.output} | {item.call_id for item in final.output}) == 2 * len(final.output)
    deltas = [event for event in events if event.type == "response.function_call_arguments.delta"]
    assert len(deltas) > 5 and "".join(event.delta for event in deltas) == "".join(item.arguments for item in final.output)
    assert not any(event.type.startswith("response.output_text") for event in events)
    assert final.output[0].parsed_arguments["unit"] in ("celsius", "fahrenheit")
    # What the helper has added comes back with the items.
    outputs = [{"type": "function_call_output", "call_id": item.call_id, "output": "31"} for item in final.output]
    again = client.responses.create(model=smollm2.name, input=[*final.output, *outputs], max_output_tokens=5)
    assert again.usage.output_tokens > 0


def test_a_conversation_goes_on_with_what_was_answered(client, smollm2):
    first = client.responses.create(model=smollm2.name, input=QUESTION, temperature=0)
    items = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}, *first.output,
             {"role": "user", "content": "And of Italy?"}]
    second = client.responses.create(model=smollm2.name, input=items, temperature=0, max_output_tokens=40)
    chat = client.chat.completions.create(model=smollm2.name, temperature=0, max_tokens=40, messages=[
        {"role": "user", "content": QUESTION}, {"role": "assistant", "content": first.output_text}, {"role": "user", "content": "And of Italy?"}])
    assert second.output_text == chat.choices[0].message.content and second.usage.input_tokens == chat.usage.prompt_tokens


@pytest.mark.parametrize("given, param, code", [
    ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
    ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
    ({"background": True}, "background", "unsupported_parameter"),
    ({"truncation": "auto"}, "truncation", "unsupported_parameter"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
    ({"reasoning": {"effort": "high"}}, "reasoning.effort", "unsupported_parameter"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0].type", "unsupported_parameter"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type", "unsupported_parameter"),
    ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
    ({"temperature": 3}, "temperature", "invalid_value"),
    ({"max_output_tokens": 100000}, "input", "context_length_exceeded"),
])
def test_what_is_not_built_is_refused_with_its_place(client, smollm2, given, param, code):
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**{"model": smollm2.name, "input": "a", **given})
    assert (refused.value.param, refused.value.code) == (param, code), refused.value.message


def test_nothing_is_kept(client, smollm2):
    reply = client.responses.create(model=smollm2.name, input="a", max_output_tokens=1, store=True)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(reply.id)


def test_the_houses_own_parameters_work_here_too(client, smollm2):
    def text(seed):
        return client.responses.create(model=smollm2.name, input="Name an animal.", max_output_tokens=12,
                                       extra_body={"seed": seed, "top_k": 50, "min_p": 0.01, "ignore_eos": True}).output_text
    assert text(7) == text(7) and len({text(seed) for seed in (7, 8, 9)}) > 1
    forced = client.responses.create(model=smollm2.name, input=QUESTION, temperature=0,
                                     extra_body={"structured_outputs": {"choice": ["yes", "no"]}, "priority": 5, "cache_salt": "x"})
    assert forced.output_text in ("yes", "no")


def test_an_aborted_stream_ends(client, smollm2):
    with client.responses.create(model=smollm2.name, input="Once", max_output_tokens=1000, stream=True, extra_body={"ignore_eos": True}) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    quern_serve.wait_for(lambda: smollm2.metric("quern_requests_running") == 0, "the aborted stream's end")
