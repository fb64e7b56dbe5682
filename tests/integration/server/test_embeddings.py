"""/v1/embeddings, and the log-probabilities of prompts, against the float32 reference and the model's own answers."""

import base64
import concurrent.futures
import json
import math
import struct
from pathlib import Path

import openai
import pytest
import quern_serve

RECORDINGS = Path(__file__).resolve().parents[2] / "recordings" / "embeddings" / "recordings.json"


def unpack(text: str) -> list[float]:
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def cosine(a, b) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def of(server, inputs, **arguments):
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="-", max_retries=0, timeout=quern_serve.PATIENCE)
    return client.embeddings.create(model=server.name, input=inputs, **arguments)


def check_against_the_reference(server, model):
    recorded = json.loads(RECORDINGS.read_text())[model]
    got = of(server, [entry["text"] for entry in recorded])  # the client asks for base64
    assert got.usage.prompt_tokens == sum(entry["tokens"] for entry in recorded)
    for entry, item in zip(recorded, got.data, strict=True):
        assert abs(sum(x * x for x in item.embedding) - 1) < 1e-5
        # Activations of 16 bits and a 16-bit KV cache; int8 ones make 0.999.
        assert cosine(item.embedding, unpack(entry["embedding"])) > 0.9999, entry["text"][:40]
    numbers = of(server, recorded[0]["text"], encoding_format="float").data[0].embedding
    assert numbers == pytest.approx(got.data[0].embedding, abs=1e-4)


def test_smollm2_gives_the_references_vectors(smollm2):
    check_against_the_reference(smollm2, quern_serve.SMOLLM2)


def test_gemma_gives_the_references_vectors():
    with quern_serve.Server(quern_serve.model(quern_serve.GEMMA), "--kv-memory", "128MiB") as server:
        check_against_the_reference(server, quern_serve.GEMMA)


def test_a_long_list_is_answered_while_others_are_served(smollm2, client):
    texts = [f"text number {i} " + "and more of it " * 8 for i in range(150)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        vectors = pool.submit(of, smollm2, texts)
        quern_serve.wait_for(lambda: smollm2.metric("quern_requests_running") > 0, "the first of them to run")
        chat = client.completions.create(model=smollm2.name, prompt="One, two,", max_tokens=1, temperature=0)
        assert chat.choices[0].text and not vectors.done()
        data = vectors.result().data
    assert [item.index for item in data] == list(range(150))
    assert cosine(data[7].embedding, of(smollm2, texts[7]).data[0].embedding) > 0.9999


def test_echo_with_logprobs_scores_a_prompt_as_generating_it_does(smollm2, client):
    arguments = dict(model=smollm2.name, temperature=0, logprobs=3)
    made = client.completions.create(prompt="The capital of France is", max_tokens=12, echo=True, **arguments).choices[0]
    assert made.text.startswith("The capital of France is")
    tokens = client.post("/../tokenize", body={"model": smollm2.name, "prompt": made.text}, cast_to=object)["tokens"]
    scored = client.completions.create(prompt=tokens, max_tokens=0, echo=True, **arguments).choices[0]
    assert scored.text == made.text and scored.finish_reason == "length"
    assert scored.logprobs.tokens == made.logprobs.tokens[: len(tokens)]
    assert scored.logprobs.token_logprobs[0] is None and scored.logprobs.top_logprobs[0] is None
    for at in range(1, len(tokens)):
        assert scored.logprobs.token_logprobs[at] == pytest.approx(made.logprobs.token_logprobs[at], abs=0.05)
        offset = scored.logprobs.text_offset[at]
        assert made.text[offset:].startswith(scored.logprobs.tokens[at])
        assert len(scored.logprobs.top_logprobs[at]) in (3, 4)


def test_a_prompt_is_scored_the_same_when_it_is_cached_and_in_a_stream(smollm2, client):
    prompt = "Once upon a time, in a land far away, there lived " * 20
    arguments = dict(model=smollm2.name, prompt=prompt, max_tokens=0, echo=True, logprobs=0)
    first = client.completions.create(**arguments)
    second = client.completions.create(**arguments)
    assert second.usage.prompt_tokens_details.cached_tokens == 0
    assert second.choices[0].logprobs.token_logprobs[1:] == pytest.approx(
        first.choices[0].logprobs.token_logprobs[1:], abs=0.05)
    text, logprobs = "", []
    for chunk in client.completions.create(**arguments, stream=True):
        text += chunk.choices[0].text
        if chunk.choices[0].logprobs:
            logprobs += chunk.choices[0].logprobs.token_logprobs
    assert text == prompt
    assert logprobs[1:] == pytest.approx(first.choices[0].logprobs.token_logprobs[1:], abs=0.05)
