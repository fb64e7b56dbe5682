"""--kv-dtype: what a quantised KV cache saves, that answers stay what they were, and when auto takes one."""

import re

import pytest
import quern_serve

PROMPT = "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is"
MEMORY = ("--max-sequences", "4", "--kv-memory", "12MiB")


def start(*options):
    return quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), *MEMORY, *options)


def planned(server):
    """What the log says of the KV cache: tokens and dtype."""
    found = re.search(r"KV \S+ MiB = ([\d,]+) tokens .*the KV cache stores (\w+)", "\n".join(server.log))
    return int(found.group(1).replace(",", "")), found.group(2)


def answer(server, prompt=PROMPT):
    said = server.post("/v1/completions", {"model": server.name, "prompt": prompt, "max_tokens": 8, "temperature": 0}).json()
    return said["choices"][0]["text"], said["usage"].get("prompt_tokens_details", {}).get("cached_tokens", 0)


@pytest.fixture(scope="module")
def half():
    with start() as server:
        yield planned(server), answer(server)[0]


@pytest.mark.parametrize("dtype,saved,alike", [("int8", 0.469, None), ("int4", 0.594, len(" Madrid."))])
def test_fewer_bits_hold_more_tokens_and_begin_alike(half, dtype, saved, alike):
    (tokens, stored), text = half
    assert stored == "f16" and text.startswith(" Madrid.")
    with start("--kv-dtype", dtype) as server:
        assert planned(server) == (pytest.approx(tokens / (1 - saved), rel=0.02), dtype)
        first, _ = answer(server)
        again, cached = answer(server)  # over the blocks that the first has left in the prefix cache
        assert cached > 0 and again == first
        assert first[:alike] == text[:alike]


def test_auto_takes_int8_only_where_the_context_does_not_fit_otherwise():
    with start("--kv-dtype", "auto", "--max-context-tokens", "512") as server:
        assert planned(server)[1] == "f16"
    with start("--kv-dtype", "auto", "--max-context-tokens", "768") as server:
        assert planned(server)[1] == "int8"
        assert any("KV cache in int8 rather than f16: a context of 768 tokens" in line for line in server.log)
