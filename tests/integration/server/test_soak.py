"""Thousands of requests of every kind, good, bad, cut off and too many, after which nothing may be left of them.

QUERN_SOAK_REQUESTS says how many (300; `hack/test --full` runs 10,000); QUERN_BIN names another build, such as one with assertions,
where the engine checks its accounting of blocks after every step."""

import concurrent.futures
import contextlib
import json
import os
import random
import socket
from urllib.parse import urlsplit

import quern_serve
import requests

REQUESTS = int(os.environ.get("QUERN_SOAK_REQUESTS", "300"))
WORKERS = 24
MIB = 2**20
WORDS = "the of and to in is that it was for on are with as at be this have from or one had by word but not what all were we when".split()
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {
    "type": "object", "properties": {"zone": {"type": "string", "maxLength": 8}}, "required": ["zone"],
    "additionalProperties": False}}}


class Soak:
    """One worker's requests. Each method is one kind; it returns what the server said, or None where it did not wait for it."""

    def __init__(self, server, seed):
        self.server, self.random = server, random.Random(seed)
        self.session = requests.Session()

    def text(self, most=40):
        return " ".join(self.random.choices(WORDS, k=self.random.randint(1, most)))

    def parameters(self):
        pick = self.random
        chosen = {"model": self.server.name, "max_tokens": pick.randint(1, 12), "temperature": pick.choice([0, 0.7, 1.5])}
        for name, values in {"top_p": [0.5, 0.9], "top_k": [1, 40], "min_p": [0.1], "n": [2, 3], "seed": [pick.randrange(99)],
                             "frequency_penalty": [0.5], "logit_bias": [{"5": 10}], "stop": [["the"]], "min_tokens": [1],
                             "priority": [3], "cache_salt": ["s"]}.items():
            if pick.random() < 0.15:
                chosen[name] = pick.choice(values)
        return chosen

    def post(self, path, body, **arguments):
        kind = {"data": body} if isinstance(body, (bytes, str)) else {"json": body}
        return self.session.post(self.server.url + path, timeout=quern_serve.PATIENCE, **kind, **arguments)

    def completion(self):
        body = {**self.parameters(), "prompt": self.text()}
        if self.random.random() < 0.3:
            body |= {"echo": True, "logprobs": self.random.randint(0, 5)}
        return self.post("/v1/completions", body).status_code

    def chat(self):
        body = {**self.parameters(), "messages": [{"role": "user", "content": self.text()}]}
        choice = self.random.random()
        if choice < 0.1:
            body["response_format"] = {"type": "json_object"}
        elif choice < 0.2:
            body |= {"tools": [TOOL], "tool_choice": self.random.choice(["auto", "required"])}
        return self.post("/v1/chat/completions", body).status_code

    def embeddings(self):
        return self.post("/v1/embeddings", {"model": self.server.name,
                                            "input": [self.text(12) for _ in range(self.random.randint(1, 40))]}).status_code

    def stream(self):
        body = {**self.parameters(), "prompt": self.text(), "stream": True}
        with self.post("/v1/completions", body, stream=True) as answer:
            assert answer.status_code != 200 or b"[DONE]" in answer.content
            return answer.status_code

    def calls(self):
        body = {"model": self.server.name, "messages": [{"role": "user", "content": self.text()}], "max_tokens": 40, "stream": True,
                "tools": [TOOL], "tool_choice": "required"}
        with self.post("/v1/chat/completions", body, stream=True) as answer:
            assert answer.status_code != 200 or b"tool_calls" in answer.content
            return answer.status_code

    def response(self):
        body = {"model": self.server.name, "input": self.text(), "max_output_tokens": self.random.randint(1, 12),
                "stream": self.random.random() < 0.6}
        if self.random.random() < 0.3:
            body |= {"tools": [{"type": "function", **TOOL["function"]}], "tool_choice": "required", "max_output_tokens": 40}
        with self.post("/v1/responses", body, stream=True) as answer:
            if body["stream"] and self.random.random() < 0.3:
                next(answer.iter_lines(), None)
                self.session.close()
                return None
            assert answer.status_code != 200 or b'"output"' in answer.content
            return answer.status_code

    def cut_off(self):
        body = {**self.parameters(), "prompt": self.text(), "stream": True, "max_tokens": 160, "ignore_eos": True}
        with self.post("/v1/completions", body, stream=True) as answer:
            for _ in zip(range(self.random.randint(0, 6)), answer.iter_lines(), strict=False):
                pass
        self.session.close()  # the connection, with the answer half read

    def long(self):
        return self.post("/v1/completions", {"model": self.server.name, "prompt": self.text(), "max_tokens": 120,
                                             "ignore_eos": True}).status_code

    def gone_at_once(self):
        body = json.dumps({**self.parameters(), "prompt": self.text(150), "max_tokens": 100})
        self.raw(f"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def malformed(self):
        body = json.dumps({**self.parameters(), "prompt": self.text()}).encode()
        choice = self.random.randrange(5)
        if choice == 0:
            body = body[:self.random.randrange(len(body))]
        elif choice == 1:
            body = self.random.randbytes(self.random.randint(0, 300))
        elif choice == 2:
            body = b"[" * 5000
        elif choice == 3:
            body = json.dumps({"model": self.server.name, "prompt": [["x", 1]], "temperature": "hot"})
        else:
            body = json.dumps({"model": self.server.name, "prompt": "x" * 300_000})
        status = self.post(self.random.choice(["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/tokenize"]), body).status_code
        assert 400 <= status < 500, (status, body[:100])
        return status

    def garbage(self):
        self.raw(self.random.choice([b"", b"GET", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 9", b"\x16\x03\x01" * 50,
                                     b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
                                     self.random.randbytes(200)]))

    def raw(self, data: bytes):
        target = urlsplit(self.server.url)
        with contextlib.suppress(OSError), socket.create_connection((target.hostname, target.port), timeout=10) as connection:
            connection.sendall(data)
            if self.random.random() < 0.5:
                connection.shutdown(socket.SHUT_WR)

    def one(self):
        kinds = {self.completion: 23, self.long: 2, self.chat: 20, self.stream: 15, self.cut_off: 12, self.gone_at_once: 8, self.malformed: 12,
                 self.garbage: 4, self.embeddings: 4, self.response: 8, self.calls: 3}
        return self.random.choices(list(kinds), weights=list(kinds.values()))[0]()


def run(server, requests_wanted, seed):
    def work(worker):
        soak = Soak(server, seed * 1000 + worker)
        with soak.session:
            return [soak.one() for _ in range(requests_wanted // WORKERS)]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        return [status for statuses in pool.map(work, range(WORKERS)) for status in statuses if status is not None]


def settled(server):
    def nothing_left():
        now = server.metrics()
        return all(value == 0 for name, value in now.items() if name.split("{")[0] in (
            "quern_requests_running", "quern_requests_waiting", "quern_kv_cache_usage_ratio"))
    quern_serve.wait_for(nothing_left, "every request and block to be gone")


def test_nothing_is_left_of_thousands_of_requests_of_every_kind():
    # A small cache and a short queue: preemptions, evictions and refusals are part of it.
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--threads", "2", "--kv-memory", "8MiB", "--max-context-tokens", "320",
                            "--max-sequences", "8", "--max-waiting", "20", "--max-body", "256KiB") as server:
        probe = {"model": server.name, "prompt": "The capital of France is", "max_tokens": 16, "temperature": 0}
        said = server.post("/v1/completions", probe).json()["choices"][0]["text"]
        files = server.open_files()
        statuses = run(server, REQUESTS // 3, 1)
        settled(server)
        resident = server.resident_bytes()
        statuses += run(server, REQUESTS - REQUESTS // 3, 2)
        settled(server)
        grown = server.resident_bytes() - resident
        print(f"{REQUESTS} requests: {({s: statuses.count(s) for s in sorted(set(statuses))})}, resident {resident / MIB:.1f} MiB after a "
              f"third, {grown / MIB:+.1f} MiB at the end; {server.metric('quern_preemptions_total'):.0f} preemptions")
        assert not [s for s in statuses if s >= 500], "a server's error"
        assert statuses.count(200) > len(statuses) / 4 and 429 in statuses and 400 in statuses
        if REQUESTS >= 3000:
            assert server.metric("quern_preemptions_total") > 0
        assert grown < 8 * MIB
        quern_serve.wait_for(lambda: server.open_files() <= files, f"{files} open files, as before", 30)
        # Every one that was admitted ended; so did the choices of those of whom the engine had no room for the rest.
        assert server.metric("quern_requests_finished_total") >= server.metric("quern_admitted_requests_total") > REQUESTS / 4
        assert server.post("/v1/completions", probe).json()["choices"][0]["text"] == said
        assert server.get("/health/live").status_code == 200
        server.signal()
        assert server.wait() == 0
