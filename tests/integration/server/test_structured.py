"""Structured output through the official client: what comes back is checked with json and jsonschema."""

import asyncio
import json
import re

import jsonschema
import openai
import pytest

PERSON = {"type": "object",
          "properties": {"name": {"type": "string", "maxLength": 20},
                         "age": {"type": "integer", "minimum": 0, "maximum": 120},
                         "likes": {"type": "array", "items": {"$ref": "#/$defs/food"}, "maxItems": 2}},
          "required": ["name", "age", "likes"], "additionalProperties": False,
          "$defs": {"food": {"enum": ["bread", "cheese", "plums"]}}}
ASK = [{"role": "user", "content": "Describe a person as JSON: name, age, likes."}]
SEEDS = (1, 2, 3)


def chat(client, model, **options):
    """The text of a whole answer at temperature 1; it must have ended by itself."""
    arguments = {"messages": ASK, "max_tokens": 200, "temperature": 1, **options}
    if arguments.get("stream"):
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(model=model, **arguments) if chunk.choices]
        finish, text = chunks[-1].finish_reason, "".join(chunk.delta.content or "" for chunk in chunks)
    else:
        choice = client.chat.completions.create(model=model, **arguments).choices[0]
        finish, text = choice.finish_reason, choice.message.content
    assert finish == "stop", text
    return text


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_is_kept_to_whatever_the_seed(client, smollm2, stream):
    texts = set()
    for seed in SEEDS:
        text = chat(client, smollm2.name, seed=seed, stream=stream, response_format={
            "type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}})
        value = json.loads(text)
        jsonschema.validate(value, PERSON)
        assert list(value) == ["name", "age", "likes"], "members come in the schema's order"
        texts.add(text)
    assert len(texts) > 1, "the model still chooses"


def test_a_json_object_parses_or_is_cut_at_max_tokens(client, smollm2):
    whole = 0
    for seed in SEEDS:
        choice = client.chat.completions.create(model=smollm2.name, messages=ASK, max_tokens=300, temperature=0.7, seed=seed,
                                                response_format={"type": "json_object"}).choices[0]
        assert choice.message.content.startswith("{")
        if choice.finish_reason == "stop":
            whole += 1
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.finish_reason == "length"
    assert whole > 0


def test_choice_and_regex_are_exact(client, smollm2):
    for seed in SEEDS:
        assert chat(client, smollm2.name, seed=seed,
                    extra_body={"structured_outputs": {"choice": ["red", "green (dark)"]}}) in ("red", "green (dark)")
        text = chat(client, smollm2.name, seed=seed, extra_body={"guided_regex": r"[A-Z]{3}-\d{2,4}"})
        assert re.fullmatch(r"[A-Z]{3}-\d{2,4}", text)


def test_a_grammar_is_followed_and_ignore_eos_does_not_lead_beyond_it(client, smollm2):
    text = chat(client, smollm2.name, seed=1, extra_body={
        "ignore_eos": True, "structured_outputs": {"grammar": 'start: "1" (" " "1")~3\n'}})
    assert text == "1 1 1 1"


def test_constrained_and_free_requests_share_a_batch(client, smollm2):
    free = {"prompt": "One, two, three,", "max_tokens": 12, "temperature": 0}
    alone = client.completions.create(model=smollm2.name, **free).choices[0].text
    asynchronous = openai.AsyncOpenAI(base_url=client.base_url, api_key="-", max_retries=0, timeout=client.timeout)

    async def together():
        constrained = asynchronous.completions.create(model=smollm2.name, prompt="Yes or no?", max_tokens=8, temperature=1,
                                                      extra_body={"guided_choice": ["yes", "no"]})
        return await asyncio.gather(constrained, asynchronous.completions.create(model=smollm2.name, **free))

    answer, other = asyncio.run(together())
    assert answer.choices[0].text in ("yes", "no")
    assert other.choices[0].text == alone


@pytest.mark.parametrize("options, param, says", [
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "strng"}}}},
     "response_format.json_schema.schema", "strng"),
    ({"guided_regex": "a("}, "guided_regex", "regular expression"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.choice", "send one"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
])
def test_what_cannot_be_kept_to_is_a_clear_400(client, smollm2, options, param, says):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=smollm2.name, messages=ASK, max_tokens=5, extra_body=options)
    assert caught.value.param == param
    assert says in str(caught.value)
