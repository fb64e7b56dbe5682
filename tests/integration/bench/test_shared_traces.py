"""The recorded loads that lie beside the checkout, replayed: each request at its time, with its lengths."""

import csv
import datetime
import json

import pytest
import quern_serve
from test_quern_bench import report

TRACES = quern_serve.ROOT.parent / "shared" / "data" / "traces"
AZURE, MOONCAKE = TRACES / "azure_code_2023.csv", TRACES / "mooncake_synthetic.jsonl"
BLOCK = 512  # tokens that one of Mooncake's hash_ids stands for

pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason=f"{TRACES} is not there: the traces are no part of the repository")


def seconds(timestamp: str) -> float:
    whole, fraction = timestamp.split(".")
    return datetime.datetime.fromisoformat(whole + "+00:00").timestamp() + float("0." + fraction)


def first_of(trace, duration):
    """(seconds since the first, prompt tokens, output tokens, blocks) of the trace's first requests, read without quern-bench."""
    with trace.open() as file:
        if trace == MOONCAKE:
            rows = [json.loads(line) for line in file]
            read = [(row["timestamp"] / 1000, row["input_length"], row["output_length"], row["hash_ids"]) for row in rows]
        else:
            read = [(seconds(row["TIMESTAMP"]), int(row["ContextTokens"]), int(row["GeneratedTokens"]), [])
                    for row in csv.DictReader(file)]
    return [(at - read[0][0], *rest) for at, *rest in read if at - read[0][0] < duration]


def assert_arrivals(run, wanted, speedup):
    assert [row["index"] for row in run["requests"]] == list(range(len(wanted)))
    assert [row["scheduled"] * speedup for row in run["requests"]] == pytest.approx([at for at, *_ in wanted], abs=1e-3)
    assert all(row["sent"] >= row["scheduled"] for row in run["requests"])
    assert (run["summary"]["done"], run["summary"]["failed"]) == (len(wanted), 0)


@pytest.mark.parametrize(("trace", "duration"), [(AZURE, 60), (MOONCAKE, 20)], ids=lambda value: getattr(value, "stem", None))
def test_a_traces_requests_arrive_at_their_times_with_their_lengths(api, trace, duration):
    wanted = first_of(trace, duration)
    assert len(wanted) > 50

    def answer(handler, body):
        handler.send_answer(["x"] * body["max_tokens"], usage={"prompt_tokens": len(body["prompt"].split()) + 1,
                                                                "completion_tokens": body["max_tokens"]})
    api.answer = answer
    run = report(api.url, "--trace", trace, "--speedup", duration, "--duration", "1s", "--warmup", 0)
    assert_arrivals(run, wanted, speedup=duration)
    assert run["load"]["cut_requests"] == 0 and run["load"]["exact_prompts"]
    # As the server counted what came, and as it was asked.
    assert [(row["prompt_tokens"], row["output_tokens"]) for row in run["requests"]] == [(p, o) for _, p, o, _ in wanted]
    came = [(len(body["prompt"].split()) + 1, body["max_tokens"]) for body in api.streamed()]
    assert sorted(came) == sorted((p, o) for _, p, o, _ in wanted)


def common(first, second) -> int:
    """How many items at their beginnings are the same."""
    return next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))


def test_prompts_share_the_blocks_that_the_trace_says_they_share_and_no_more(api):
    wanted = first_of(MOONCAKE, 20)
    report(api.url, "--trace", MOONCAKE, "--speedup", 20, "--duration", "1s", "--max-output-tokens", 1, "--warmup", 0)
    by_length = {}
    for body in api.streamed():
        words = body["prompt"].split()
        by_length.setdefault(len(words) + 1, []).append(words)
    prompts = [(by_length[tokens][0], blocks) for _, tokens, _, blocks in wanted if len(by_length[tokens]) == 1]
    shared = 0
    for i, (words, blocks) in enumerate(prompts):
        for other, others in prompts[:i]:
            same = common(blocks, others)
            shared += same > 0
            # All prompts have the first word in common; chance may add one or the other.
            least = min(1 + same * BLOCK, len(words), len(other))
            assert least <= common(words, other) <= least + 4
    assert shared > 0


def test_the_real_server_is_asked_for_what_the_trace_says(smollm2):
    def total():
        return [smollm2.metric(f"quern_{name}_total") for name in
                ("admitted_requests", "admitted_prompt_tokens", "generation_tokens")]
    wanted = first_of(AZURE, 60)
    before = total()
    run = report(smollm2.url + "/v1", "--trace", AZURE, "--speedup", 60, "--duration", "1s", "--warmup", 0,
                 "--max-prompt-tokens", 48, "--max-output-tokens", 4)
    assert_arrivals(run, wanted, speedup=60)
    lengths = [(min(prompt, 48), min(output, 4)) for _, prompt, output, _ in wanted]
    assert [(row["prompt_tokens"], row["output_tokens"]) for row in run["requests"]] == lengths
    assert run["load"]["cut_requests"] == sum(prompt > 48 or output > 4 for _, prompt, output, _ in wanted)
    assert [now - then for now, then in zip(total(), before)] == \
        [len(wanted), sum(prompt for prompt, _ in lengths), sum(output for _, output in lengths)]
