#!/usr/bin/env python3
"""What a tenant that floods costs another that sends one request at a time.

    $(hack/setup --print python) tests/bench/fairness.py [--requests 40] [--flood 64] [further options of quern-serve]

Starts build/release/bin/quern-serve with the small chat model and two API keys. First one tenant sends its requests alone, one
after the other; then again, while the other one always has --flood requests running or waiting, as many of which have ended. Prints the 95th percentile of its
time to the first token, both times, and the difference in steps of the batch in force (their mean by quern_step_duration_seconds).
The bar is two.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import quern_serve  # noqa: E402

QUICK = {"requests": 4, "prompt": 16, "tokens": 2, "flood": 6, "flood_prompt": 16, "flood_tokens": 8}
KEYS = {"single": "sk-single-0000000000", "flood": "sk-flood-00000000000"}
STEP = "quern_step_duration_seconds"


def body(server, rng, prompt, tokens, stream):
    return {"model": server.name, "prompt": [rng.randrange(1000, 30000) for _ in range(prompt)], "max_tokens": tokens,
            "temperature": 0, "ignore_eos": True, "stream": stream}


def ask(server, tenant, request):
    return requests.post(server.url + "/v1/completions", json=request, stream=request["stream"], timeout=600,
                         headers={"Authorization": f"Bearer {KEYS[tenant]}"})


def first_token(server, request) -> float:
    begin = time.monotonic()
    with ask(server, "single", request) as answer:
        answer.raise_for_status()
        first = None
        for line in answer.iter_lines(chunk_size=1):
            if line.startswith(b"data: {") and first is None:
                first = time.monotonic() - begin
    return first


class Flood:
    """So many requests of one tenant, always."""

    def __init__(self, server, args):
        self.server, self.args, self.stop, self.failed, self.ended = server, args, threading.Event(), None, 0
        self.threads = [threading.Thread(target=self.run, args=(seed,), daemon=True) for seed in range(args.flood)]
        for thread in self.threads:
            thread.start()

    def run(self, seed):
        rng = random.Random(seed)
        while not self.stop.is_set():
            answer = ask(self.server, "flood", body(self.server, rng, self.args.flood_prompt, self.args.flood_tokens, False))
            if answer.status_code != 200:
                self.failed = answer.text
                return
            self.ended += 1

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.failed:
            sys.exit(f"the flood was refused: {self.failed}")


def p95(values):
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def measure(server, args):
    rng = random.Random(7)
    before = [server.metric(f"{STEP}_{part}") for part in ("sum", "count")]
    times = [first_token(server, body(server, rng, args.prompt, args.tokens, True)) for _ in range(args.requests)]
    seconds, steps = (server.metric(f"{STEP}_{part}") - was for part, was in zip(("sum", "count"), before))
    return p95(times), seconds / steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value, what in (("requests", 40, "of the single tenant"), ("prompt", 64, "its tokens"), ("tokens", 8, "of its answers"),
                              ("flood", 64, "requests at once"), ("flood-prompt", 128, "tokens"), ("flood-tokens", 64, "of answers")):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{what} [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows in seconds that the script works, and no more")
    if "--quick" in sys.argv:
        parser.set_defaults(**QUICK)
    args, options = parser.parse_known_args()
    tenants = [{"name": name, "keys": [key], "max_requests": 200} for name, key in KEYS.items()]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"tenants": tenants}, file)
        file.flush()
        with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--threads", "2", "--tenants", file.name, *options) as server:
            alone, _ = measure(server, args)
            flood = Flood(server, args)
            quern_serve.wait_for(lambda: flood.ended >= args.flood, "the flood's first requests")
            beside, step = measure(server, args)
            preempted = server.metric("quern_preemptions_total", reason="fairness")
            flood.end()
    print(f"p95 TTFT alone {alone * 1e3:.1f} ms, beside the flood {beside * 1e3:.1f} ms: {(beside - alone) / step:.2f} steps of "
          f"{step * 1e3:.1f} ms more; {preempted:.0f} sequences gave way")


if __name__ == "__main__":
    main()
