"""quern-serve --tensor-parallel-size: a model split over processes, and what happens when one of them ends."""

import json
import os
import re
import signal
import threading
from pathlib import Path

import pytest
import quern_serve
import requests

GEMMA = quern_serve.model(quern_serve.GEMMA)  # 4 attention heads, 1 KV head, 640 x 2048
SMOLLM2 = quern_serve.model(quern_serve.SMOLLM2)  # 9 and 3
OPTIONS = ("--kv-memory", "48MiB", "--max-context-tokens", "1024", "--threads", "2")
PROMPTS = ("The capital of France is", "Once upon a time, there was a", "def fibonacci(n):\n", "1, 2, 3, 4, 5,",
           "Water boils at a temperature of")
# Of the difference between two log-probabilities, on either side of which the last bits may decide: 16-bit K and V
# through 18 layers make logits of up to 40 uncertain by 18 x 2 x 40 / 2048 at the very most.
UNCERTAIN = 2 * 0.7


def start(model, size, *options):
    return quern_serve.Server(model, *OPTIONS, "--tensor-parallel-size", str(size), *options)


def followers(server) -> list[int]:
    return [int(found.group(1)) for found in (re.search(r"rank \d+ of \d+ is process (\d+)", line) for line in server.log)
            if found]


def is_there(process: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def rendezvous_folders() -> set[str]:
    return {str(path) for base in ("/tmp", os.environ.get("TMPDIR", "/tmp"), "/dev/shm")
            for path in Path(base).glob("quern-ranks-*")}


def all_gone(processes):
    quern_serve.wait_for(lambda: not any(map(is_there, processes)), f"the end of {processes}", patience=30)


def complete(server, prompt, **more):
    body = {"model": server.name, "prompt": prompt, "max_tokens": 32, "temperature": 0, "logprobs": 2, "ignore_eos": True}
    reply = server.post("/v1/completions", body | more)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]


def all_completed(server):
    """Of all prompts at once, so that they share steps."""
    choices = {}
    threads = [threading.Thread(target=lambda p=p: choices.update({p: complete(server, p)})) for p in PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [choices[prompt]["logprobs"] for prompt in PROMPTS]


@pytest.mark.parametrize("model,sizes", [(GEMMA, (2, 4)), (SMOLLM2, (3,))])
def test_greedy_texts_are_those_of_one_process(model, sizes):
    with quern_serve.Server(model, *OPTIONS) as server:
        assert server.metric("quern_tensor_parallel_size") == 1
        alone = all_completed(server)
    for size in sizes:
        before = rendezvous_folders()
        with start(model, size) as server:
            processes = followers(server)
            assert len(processes) == size - 1
            assert rendezvous_folders() <= before, "the ranks have met: their folder is not needed"
            assert server.metric("quern_tensor_parallel_size") == size
            assert any(f"in each of {size} processes" in line for line in server.log)
            assert any(f"each of {size} processes' share" in line for line in server.log)
            same = 0
            for one, split in zip(alone, all_completed(server), strict=True):
                parted = [i for i, (a, b) in enumerate(zip(one["tokens"], split["tokens"], strict=True)) if a != b]
                same += not parted
                if parted:
                    best, second = sorted(one["top_logprobs"][parted[0]].values(), reverse=True)[:2]
                    assert best - second < UNCERTAIN, (one["tokens"], split["tokens"])
            assert same >= len(PROMPTS) // 2, "greedy texts part too often"
            server.signal()
            assert server.wait() == 0
        all_gone(processes)


def test_head_counts_that_do_not_split_are_refused_with_the_reason():
    for size in (2, 4):
        result = quern_serve.run_to_end(SMOLLM2, "--port", "0", "--admin-port", "0", "--tensor-parallel-size", str(size))
        assert result.returncode == 2
        assert f"cannot be split over {size} processes: its 9 attention heads cannot be split evenly" in result.stderr
        assert "numbers that suit it: 1, 3, 9" in result.stderr
        all_gone([int(p) for p in re.findall(r"is process (\d+)", result.stderr)])


def test_a_file_that_is_no_model_ends_all_processes():
    before = rendezvous_folders()
    result = quern_serve.run_to_end(__file__, "--port", "0", "--admin-port", "0", "--tensor-parallel-size", "2")
    assert result.returncode == 2 and "GGUF" in result.stderr
    all_gone([int(p) for p in re.findall(r"is process (\d+)", result.stderr)])
    assert rendezvous_folders() <= before


class Stream:
    """A completion that is streamed, and has begun."""

    def __init__(self, server, max_tokens=900):
        body = {"model": server.name, "prompt": "Once", "max_tokens": max_tokens, "stream": True, "ignore_eos": True}
        self.events = []
        self.reply = requests.post(server.url + "/v1/completions", json=body, stream=True, timeout=60)
        self.lines = self.reply.iter_lines()
        for _ in range(4):
            self.next()

    def next(self):
        for line in self.lines:
            if line.startswith(b"data: "):
                self.events.append(line[6:].decode())
                return True
        return False


@pytest.mark.parametrize("size", (2, 4))
def test_a_follower_that_dies_ends_streams_with_an_error_and_the_process(size):
    with start(GEMMA, size) as server:
        stream = Stream(server)
        processes = followers(server)
        os.kill(processes[-1], signal.SIGKILL)
        while stream.next():
            pass
        assert stream.events[-1] == "[DONE]"
        last = json.loads(stream.events[-2])
        assert last["error"]["type"] == "server_error" and "another rank has ended" in last["error"]["message"]
        assert server.wait(30) == 1
        assert any(f"rank {size - 1} of {size} (process {processes[-1]}) was ended by signal 9" in line for line in server.log)
        all_gone(processes)


def test_a_follower_that_dies_while_nothing_runs_ends_the_process():
    with start(GEMMA, 2) as server:
        os.kill(followers(server)[0], signal.SIGKILL)
        assert server.wait(30) == 1


def test_whole_answers_end_with_status_500_when_a_follower_dies():
    with start(GEMMA, 2) as server:
        replies = []
        body = {"model": server.name, "prompt": "Once", "max_tokens": 900, "ignore_eos": True}
        threads = [threading.Thread(target=lambda: replies.append(server.post("/v1/completions", body))) for _ in range(3)]
        for thread in threads:
            thread.start()
        quern_serve.wait_for(lambda: server.metric("quern_requests_running") == 3, "three requests that run")
        os.kill(followers(server)[0], signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert [reply.status_code for reply in replies] == [500] * 3
        assert {reply.json()["error"]["code"] for reply in replies} == {"generation_failed"}
        assert server.wait(30) == 1


def test_the_followers_end_with_rank_0():
    for kill_while_it_runs in (False, True):
        with start(GEMMA, 4) as server:
            processes = followers(server)
            stream = Stream(server) if kill_while_it_runs else None
            server.signal(signal.SIGKILL)
            server.wait()
            all_gone(processes)
            if stream:
                stream.reply.close()


def test_an_interrupt_of_all_processes_drains_as_one_of_rank_0():
    with start(GEMMA, 2) as server:
        stream = Stream(server, max_tokens=60)
        processes = followers(server)
        for process in [*processes, server.process.pid]:  # as a terminal does
            os.kill(process, signal.SIGINT)
        while stream.next():
            pass
        assert stream.events[-1] == "[DONE]"
        assert server.wait() == 0
        all_gone(processes)


def test_a_follower_that_hangs_does_not_hold_up_the_end():
    with start(GEMMA, 2) as server:
        others = followers(server)
        complete(server, PROMPTS[0], max_tokens=2)
        os.kill(others[0], signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=40) == 0
        all_gone(others)


def test_they_sleep_and_wake_together():
    with start(GEMMA, 2, "--sleep-mode", "on") as server:
        before = complete(server, PROMPTS[0])["text"]
        follower = Path(f"/proc/{followers(server)[0]}/statm")
        awake = int(follower.read_text().split()[1])
        for _ in range(2):
            assert server.post("/sleep", {}, admin=True).json() == {"status": "sleeping"}
            quern_serve.wait_for(lambda: int(follower.read_text().split()[1]) < awake / 2, "the follower's memory")
            assert server.post("/wake_up", {}, admin=True).json() == {"status": "awake"}
            assert complete(server, PROMPTS[0])["text"] == before
        server.signal()
        assert server.wait() == 0
