"""quern-serve --device cuda --tensor-parallel-size over emulated GPUs and the emulated NCCL (docs/simt.md), in processes."""

import json
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import quern_serve
import requests
from quern_dev import gpu_ranks

NCCL = Path(quern_serve.binary()).resolve().parents[1] / "emulated-nccl"
OPTIONS = ("--kv-memory", "8MiB", "--max-batch-tokens", "64", "--max-sequences", "4", "--threads", "2")
PROMPTS = ("Hello", "Once upon a time, there was", "1, 2, 3,")
# Of two log-probabilities' difference, on either side of which bfloat16 may decide.
UNCERTAIN = 0.25


def environment(gpus: int, nccl: Path = NCCL) -> dict:
    seed = random.randrange(1, 1 << 30)  # of the order in which threads and streams go on
    print(f"QUERN_SIMT_SEED={seed}")
    return {"LD_LIBRARY_PATH": str(nccl), "QUERN_SIMT_DEVICES": str(gpus), "QUERN_SIMT_SEED": str(seed)}


def start(model, size, *options, gpus=4, device="cuda"):
    split = ("--tensor-parallel-size", str(size)) if size > 1 else ()
    return quern_serve.Server(model, *OPTIONS, "--device", device, *split, *options, environment=environment(gpus))


def refused(model, gpus=4, nccl=NCCL, **more):
    options = (model, *OPTIONS, "--device", more.get("device", "cuda"), "--tensor-parallel-size", "2", "--port", "0", "--admin-port", "0")
    return quern_serve.run_to_end(*options, environment=environment(gpus, nccl) | more.get("variables", {}))


def logged(server, pattern) -> list:
    return [found.groups() for found in (re.search(pattern, line) for line in list(server.log)) if found]


def followers(server) -> list[int]:
    return [int(process) for (process,) in logged(server, r"rank \d+ of \d+ is process (\d+)")]


def steps(server) -> float:
    return server.metric("quern_step_duration_seconds_count")


def complete(server, prompt, tokens=6):
    body = {"model": server.name, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 4, "ignore_eos": True}
    reply = server.post("/v1/completions", body)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["logprobs"]


def all_completed(server) -> list:
    """Of all prompts at once, so that they share steps."""
    choices = {}
    threads = [threading.Thread(target=lambda p=p: choices.update({p: complete(server, p)})) for p in PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [choices[prompt] for prompt in PROMPTS]


def test_greedy_texts_are_those_of_one_gpu(tiny):
    with start(tiny, 1) as server:
        alone = all_completed(server)
    with start(tiny, 2, device="cuda:1") as server:
        assert server.metric("quern_tensor_parallel_size") == 2
        assert sorted(logged(server, r"rank (\d) of 2 computes on GPU (\d)")) == [("0", "1"), ("1", "2")]
        both = all_completed(server)
        assert complete(server, PROMPTS[0]) == complete(server, PROMPTS[0]), "recorded steps have other bits"
        server.signal()
        assert server.wait() == 0
    ok, note = gpu_ranks.compare(alone, both, UNCERTAIN)
    assert ok, note


def test_they_sleep_and_wake_together(tiny):
    with start(tiny, 2, "--sleep-mode", "on") as server:
        before = complete(server, PROMPTS[0])
        for _ in range(2):
            assert server.post("/sleep", {}, admin=True).json() == {"status": "sleeping"}
            assert server.post("/wake_up", {}, admin=True).json() == {"status": "awake"}
            assert complete(server, PROMPTS[0]) == before
        assert len(logged(server, r"(computes on GPU)")) == 2, "the GPUs were connected anew"
        server.signal()
        assert server.wait() == 0


def wait_until_stuck(server):
    """Until no step has ended for as long as many take: what tells that one waits for a rank is that nothing happens."""
    seen = {"steps": -1.0, "since": 0.0}

    def stuck():
        now, count = time.monotonic(), steps(server)
        if count != seen["steps"]:
            seen.update(steps=count, since=now)
        return now - seen["since"] > 0.3
    quern_serve.wait_for(stuck, "a step that does not end")


def stream(server):
    """The events of a long text, of which the first has come."""
    body = {"model": server.name, "prompt": "Once", "max_tokens": 200, "stream": True, "ignore_eos": True}
    reply = requests.post(server.url + "/v1/completions", json=body, stream=True, timeout=60)
    events = (line[6:].decode() for line in reply.iter_lines(chunk_size=1) if line.startswith(b"data: "))
    next(events)
    return events


@pytest.mark.parametrize("hang_first", (False, True))
def test_a_rank_that_dies_ends_streams_with_an_error_and_the_process(tiny, hang_first):
    with start(tiny, 2) as server:
        (other,) = followers(server)
        events = stream(server)
        if hang_first:  # so that rank 0 waits on its GPU, or for the other to take what it sends
            os.kill(other, signal.SIGSTOP)
            wait_until_stuck(server)
        os.kill(other, signal.SIGKILL)
        *_, last, done = events
        assert done == "[DONE]"
        assert json.loads(last)["error"]["type"] == "server_error" and "rank has ended" in last
        assert server.wait(30) == 1
        assert logged(server, f"(rank 1 of 2 .process {other}. was ended by signal 9)")


def test_sigterm_ends_the_process_though_a_rank_hangs(tiny):
    with start(tiny, 2, "--drain-timeout", "1s") as server:
        (other,) = followers(server)
        events = stream(server)
        os.kill(other, signal.SIGSTOP)
        wait_until_stuck(server)
        server.signal()
        assert server.wait(30) == 1
        del events  # until here: a client that leaves ends its request
        with pytest.raises(ProcessLookupError):
            os.kill(other, 0)


def test_a_rank_that_dies_while_the_gpus_connect_is_no_reason_to_take_the_cpus(tiny):
    options = (*OPTIONS, "--device", "auto", "--tensor-parallel-size", "2")
    variables = environment(4) | {"QUERN_SIMT_NCCL_FAULT": "silent"}
    with quern_serve.Server(tiny, *options, ready=False, environment=variables) as server:
        quern_serve.wait_for(lambda: logged(server, r"(processes have met)"), "the ranks' meeting")
        (other,) = followers(server)
        os.kill(other, signal.SIGKILL)
        assert server.wait(30) == 1
        assert not logged(server, r"(computing on the CPU)")


REMEDIES = (
    (1, "cuda", "0 to 1", "in a pod, ask for nvidia.com/gpu: 2"),
    (2, "cuda:1", "1 to 2", "--device cuda:0 to cuda:0 would do"),
    (3, "cuda:2147483647", "2147483647 to 2147483648", "--device cuda:0 to cuda:1 would do"),
)


@pytest.mark.parametrize(("gpus", "device", "numbers", "remedy"), REMEDIES)
def test_fewer_gpus_than_ranks_are_refused(tiny, gpus, device, numbers, remedy):
    result = refused(tiny, gpus, device=device)
    assert result.returncode == 1
    expected = f"--tensor-parallel-size 2 needs a GPU for each process, {numbers}, and the NVIDIA driver shows {gpus}, numbered from 0; {remedy}"
    assert expected in result.stderr


def test_an_error_in_the_first_sums_is_said_once(tiny):
    result = refused(tiny, variables={"QUERN_SIMT_NCCL_FAULT": "sum"})
    assert result.returncode == 1
    assert "rank 0 of 2, NCCL: an all-reduce failed: unhandled system error: the test's fault" in result.stderr
    assert "rank 0 of 2: rank 1 of 2" not in result.stderr


def test_without_nccl_the_error_says_what_to_install(tiny, tmp_path):
    (tmp_path / "libnccl.so.2").write_text("no library")
    result = refused(tiny, nccl=tmp_path)
    assert result.returncode == 2
    assert "a model over several GPUs needs NCCL, which cannot be opened" in result.stderr and "libnccl2" in result.stderr


def test_gpus_that_nccl_cannot_connect_are_an_error(tiny):
    result = refused(tiny, variables={"QUERN_SIMT_NCCL_FAULT": "init"})
    assert result.returncode == 1
    assert "NCCL cannot connect the ranks' GPUs: unhandled system error: the test's fault" in result.stderr


def test_auto_takes_the_gpus_or_the_cpus_with_the_reason(tiny):
    with start(tiny, 2, device="auto") as server:
        assert len(logged(server, r"(computes on GPU)")) == 2
    with start(tiny, 2, device="auto", gpus=1) as server:
        assert logged(server, r"(computing on the CPU: --tensor-parallel-size 2 needs a GPU for each process)")
        assert len(complete(server, PROMPTS[0])["tokens"]) == 6
