"""The official Python client, unchanged, against the real program with the real model."""

import asyncio

import openai
import pytest
import quern_serve

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


def test_models_are_listed_and_retrieved(client, smollm2):
    assert [model.id for model in client.models.list()] == [smollm2.name]
    assert client.models.retrieve(smollm2.name).owned_by == "quern"


def test_chat_answers_from_the_model(client, smollm2):
    reply = client.chat.completions.create(model=smollm2.name, messages=QUESTION, temperature=0, max_tokens=24)
    assert "Paris" in reply.choices[0].message.content
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage.prompt_tokens > 10
    assert 0 < reply.usage.completion_tokens <= 24
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_streamed_chat_is_the_same_text_in_pieces(client, smollm2):
    arguments = dict(model=smollm2.name, messages=QUESTION, temperature=0, max_completion_tokens=24)
    whole = client.chat.completions.create(**arguments)
    chunks = list(client.chat.completions.create(**arguments, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens, chunks[-1].usage.total_tokens) == (
        whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len(chunks) > 5


def test_completions_plain_and_streamed_agree(client, smollm2):
    arguments = dict(model=smollm2.name, prompt="The three primary colours are", temperature=0, max_tokens=12)
    whole = client.completions.create(**arguments)
    pieces = client.completions.create(**arguments, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 12


def test_a_prompt_that_begins_like_an_earlier_one_is_computed_only_from_there(client, smollm2):
    story = "A miller had a quern of black stone. " * 20
    arguments = dict(model=smollm2.name, prompt=story + "One day", temperature=0, max_tokens=16)
    first = client.completions.create(**arguments, extra_body={"cache_salt": "test"})
    again = client.completions.create(**arguments, extra_body={"cache_salt": "test"})
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert again.usage.prompt_tokens_details.cached_tokens >= again.usage.prompt_tokens - 17
    assert again.usage.prompt_tokens_details.cached_tokens < again.usage.prompt_tokens
    assert again.choices[0].text == first.choices[0].text
    other = client.completions.create(**arguments, extra_body={"cache_salt": "another"})
    assert other.usage.prompt_tokens_details.cached_tokens == 0
    assert other.choices[0].text == first.choices[0].text
    pieces = list(client.completions.create(**arguments, stream=True, stream_options={"include_usage": True},
                                            extra_body={"cache_salt": "another"}))
    assert pieces[-1].usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens_details.cached_tokens
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == first.choices[0].text


def test_default_of_max_tokens_is_sixteen_for_completions(client, smollm2):
    reply = client.completions.create(model=smollm2.name, prompt="Once upon a time", temperature=0)
    assert reply.usage.completion_tokens <= 16


def test_several_prompts_give_several_choices(client, smollm2):
    reply = client.completions.create(model=smollm2.name, prompt=["One, two,", "Red, green,"], max_tokens=3, temperature=0)
    assert [choice.index for choice in reply.choices] == [0, 1]
    alone = client.completions.create(model=smollm2.name, prompt="Red, green,", max_tokens=3, temperature=0)
    assert reply.choices[1].text == alone.choices[0].text


def test_stop_string_ends_the_answer_and_is_not_part_of_it(client, smollm2):
    arguments = dict(model=smollm2.name, prompt="1, 2, 3, 4, 5, 6,", temperature=0, max_tokens=30)
    free = client.completions.create(**arguments).choices[0].text
    stop = free[len(free) // 2:len(free) // 2 + 3]
    stopped = client.completions.create(**arguments, stop=stop)
    assert stopped.choices[0].text == free[:free.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"
    streamed = client.completions.create(**arguments, stop=[stop, "never to be seen"], stream=True)
    assert "".join(piece.choices[0].text for piece in streamed) == stopped.choices[0].text


def test_same_seed_same_text_and_other_seed_other_text(client, smollm2):
    def text(seed):
        return client.completions.create(model=smollm2.name, prompt="My favourite animal is", max_tokens=24, seed=seed,
                                         temperature=1.0, top_p=0.95,
                                         extra_body={"top_k": 50, "min_p": 0.01}).choices[0].text
    assert text(7) == text(7)
    assert len({text(seed) for seed in (7, 8, 9)}) > 1


def test_prompt_as_tokens_is_the_prompt_as_text(client, smollm2):
    text = "Tokens and text say the same"
    tokens = smollm2.post("/tokenize", {"prompt": text}).json()["tokens"]
    arguments = dict(model=smollm2.name, temperature=0, max_tokens=8)
    assert (client.completions.create(prompt=tokens, **arguments).choices[0].text
            == client.completions.create(prompt=text, **arguments).choices[0].text)


@pytest.mark.parametrize("text", ["plain words", "naïve café — “quotes”", "日本語のテキスト", "مرحبا بالعالم", "🙂🚀 emoji", "   spaces\n\ttabs"])
def test_detokenize_gives_back_what_was_tokenized(smollm2, text):
    reply = smollm2.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()
    assert reply["count"] == len(reply["tokens"]) > 0
    assert smollm2.post("/detokenize", {"tokens": reply["tokens"]}).json() == {"prompt": text}


def test_errors_are_the_clients_own_exceptions(client, smollm2):
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert unknown.value.code == "model_not_found" and smollm2.name in unknown.value.message
    with pytest.raises(openai.BadRequestError) as functions:
        client.chat.completions.create(model=smollm2.name, messages=QUESTION, functions=[{"name": "f", "parameters": {}}])
    assert functions.value.param == "functions" and functions.value.code == "unsupported_parameter"
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(model=smollm2.name, messages=QUESTION, temperature=3)
    assert hot.value.param == "temperature"


def test_32_concurrent_streams_all_finish_with_their_own_text(smollm2):
    async def one(client, i):
        stream = await client.completions.create(model=smollm2.name, prompt=f"Number {i} is", max_tokens=12, stream=True,
                                                 temperature=0, extra_body={"ignore_eos": True},
                                                 stream_options={"include_usage": True})
        text, usage = "", None
        async for chunk in stream:
            text += chunk.choices[0].text if chunk.choices else ""
            usage = chunk.usage or usage
        return text, usage.completion_tokens

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=smollm2.url + "/v1", api_key="-", max_retries=0,
                                      timeout=quern_serve.PATIENCE) as client:
            return await asyncio.gather(*(one(client, i) for i in range(32)))

    replies = asyncio.run(all_of_them())
    assert [tokens for _, tokens in replies] == [12] * 32
    assert all(text for text, _ in replies)
    assert smollm2.metric("quern_step_batch_sequences_bucket", le="1") < smollm2.metric("quern_step_batch_sequences_count")


def test_base_model_without_chat_template_says_what_to_use_instead():
    with quern_serve.Server(quern_serve.model(quern_serve.GEMMA), "--kv-memory", "128MiB", "--max-context-tokens", "2048") as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="-", max_retries=0)
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=server.name, messages=QUESTION)
        assert "/v1/completions" in refused.value.message
        reply = client.completions.create(model=server.name, prompt="The capital of France is", max_tokens=8, temperature=0)
        assert "France" in reply.choices[0].text
