"""Sampling parameters, choices and log-probabilities through the official client, with the real model."""

import math

import openai
import pytest

PROMPT = "The capital of France is"
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


def test_choices_of_a_stream_each_have_their_index_and_the_prompt_counts_once(client, smollm2):
    arguments = dict(model=smollm2.name, prompt=PROMPT, max_tokens=6, temperature=1.0, seed=5)
    chunks = list(client.completions.create(**arguments, n=3, stream=True, stream_options={"include_usage": True}))
    texts = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert sorted(texts) == [0, 1, 2]
    alone = client.completions.create(**arguments)
    assert texts[0] == alone.choices[0].text, "choice 0 has the request's own seed"
    assert len(set(texts.values())) > 1
    assert chunks[-1].usage.prompt_tokens == alone.usage.prompt_tokens
    assert chunks[-1].usage.completion_tokens == 18


def test_chat_logprobs_of_a_greedy_answer_are_the_greatest_streamed_or_not(client, smollm2):
    arguments = dict(model=smollm2.name, messages=QUESTION, max_tokens=12, temperature=0, logprobs=True, top_logprobs=4)
    whole = client.chat.completions.create(**arguments).choices[0]
    content = whole.logprobs.content
    for entry in content:
        assert len(entry.top_logprobs) == 4
        assert entry.token == entry.top_logprobs[0].token and entry.logprob == entry.top_logprobs[0].logprob <= 0
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) < 1.0001
    assert b"".join(bytes(entry.bytes) for entry in content).decode() == whole.message.content
    streamed = []
    for chunk in client.chat.completions.create(**arguments, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert [entry.token for entry in streamed] == [entry.token for entry in content]
    assert [entry.logprob for entry in streamed] == pytest.approx([entry.logprob for entry in content], abs=1e-3)


def test_completion_logprobs_name_their_tokens_and_where_they_stand(client, smollm2):
    choice = client.completions.create(model=smollm2.name, prompt=PROMPT, max_tokens=8, temperature=0, logprobs=3).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.text_offset == [len("".join(logprobs.tokens[:i])) for i in range(len(logprobs.tokens))]
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert len(top) == 3 and top[token] == logprob == max(top.values())


def test_a_bias_of_100_forces_a_token_whose_logprob_stays_the_models(client, smollm2):
    token = smollm2.post("/tokenize", {"prompt": " banana", "add_special_tokens": False}).json()["tokens"][0]
    word = smollm2.post("/detokenize", {"tokens": [token]}).json()["prompt"]
    choice = client.completions.create(model=smollm2.name, prompt=PROMPT, max_tokens=3, temperature=0,
                                       logit_bias={str(token): 100}, logprobs=1).choices[0]
    assert choice.text == word * 3
    assert choice.logprobs.token_logprobs[0] < -5


def test_a_frequency_penalty_ends_a_repetition(client, smollm2):
    def distinct(**penalty):
        choice = client.completions.create(model=smollm2.name, prompt="dog, dog, dog, dog, dog, dog, dog, dog,", max_tokens=40,
                                           temperature=0, logprobs=0, extra_body={"ignore_eos": True}, **penalty).choices[0]
        return len(set(choice.logprobs.tokens))
    repeating = distinct()
    assert repeating < 10, "the model alone goes round in circles"
    assert distinct(frequency_penalty=2) > 2 * repeating


def test_min_tokens_keeps_the_answer_from_ending(client, smollm2):
    arguments = dict(model=smollm2.name, messages=[{"role": "user", "content": "Say only: hi"}], temperature=0, max_tokens=60)
    ended = client.chat.completions.create(**arguments)
    assert ended.choices[0].finish_reason == "stop"
    least = ended.usage.completion_tokens + 5
    longer = client.chat.completions.create(**arguments, extra_body={"min_tokens": least})
    assert longer.usage.completion_tokens >= least


def test_echo_puts_the_prompt_before_the_answer(client, smollm2):
    arguments = dict(model=smollm2.name, prompt=PROMPT, max_tokens=4, temperature=0)
    plain = client.completions.create(**arguments).choices[0].text
    assert client.completions.create(**arguments, echo=True).choices[0].text == PROMPT + plain
    streamed = client.completions.create(**arguments, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == PROMPT + plain
