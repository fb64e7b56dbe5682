#!/usr/bin/env python3
"""What a long prompt costs those that stream beside it, and what they cost it.

    $(hack/setup --print python) tests/bench/long_prompt.py [--server URL --model NAME] [--streams 8] [--prompt 8000]

Starts build/release/bin/quern-serve with the small chat model, or asks another server with OpenAI's API at --server (llama.cpp's,
vLLM's; it must take token ids as prompts and `ignore_eos`). Some times: the prompt alone; then streams, and after a while the same
length of prompt among them; then the same streams without it, to as many tokens. Prints the ratios as medians, with what each run had:

  ITL   95th percentile of the time between two tokens of a stream while the prompt is read, over that of the same tokens without it:
        a stream's own context grows meanwhile, and its steps with it
  TTFT  time to the prompt's first token with the streams, over that alone
"""

import argparse
import json
import random
import statistics
import sys
import threading
import time
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import quern_serve  # noqa: E402

QUICK = {"streams": 2, "prompt": 1000, "before": 8, "stream_tokens": 2000, "repeats": 1}


class Stream(threading.Thread):
    """One streamed completion; `times` grows with each event that carries text or a token."""

    def __init__(self, args, prompt, max_tokens):
        super().__init__(daemon=True)
        self.args, self.prompt, self.max_tokens = args, prompt, max_tokens
        self.times, self.error = [], None
        self.stop = threading.Event()
        self.begun = time.monotonic()
        self.start()

    def run(self):
        body = {"model": self.args.model, "prompt": self.prompt, "max_tokens": self.max_tokens, "stream": True,
                "temperature": 0, "ignore_eos": True}
        try:
            with requests.post(self.args.server + "/v1/completions", json=body, stream=True, timeout=600) as answer:
                answer.raise_for_status()
                for line in answer.iter_lines(chunk_size=1):
                    if self.stop.is_set():
                        return
                    if line.startswith(b"data: {"):
                        self.times.append(time.monotonic())
        except requests.RequestException as error:
            self.error = error

    def wait_for(self, tokens):
        while len(self.times) < tokens:
            if self.error or not self.is_alive():
                sys.exit(f"a stream ended early: {self.error or 'no more events'}")
            time.sleep(0.005)


def p95(values):
    return statistics.quantiles(values, n=20)[-1]


def begin_streams(args, prompts):
    streams = [Stream(args, prompt, args.stream_tokens) for prompt in prompts]
    for stream in streams:
        stream.wait_for(8)
    return streams


def end_streams(args, streams):
    for stream in streams:
        stream.stop.set()
    if any(not s.is_alive() and not s.error and len(s.times) >= args.stream_tokens for s in streams):
        sys.exit("the streams ended before the prompt was read: give more --stream-tokens")
    for stream in streams:
        stream.join(timeout=30)


def gaps(streams, ranges):
    """The times between tokens number i and i + 1 of each stream, for those i in its range."""
    return [b - a for s, of in zip(streams, ranges, strict=True) for a, b in zip(s.times[of.start:], s.times[of.start + 1:of.stop + 1])]


def once(args, rng):
    def prompt(n):
        return [rng.randrange(1000, 30000) for _ in range(n)]

    alone = Stream(args, prompt(args.prompt), 1)
    alone.wait_for(1)
    alone_ttft = alone.times[0] - alone.begun
    alone.join()
    prompts = [prompt(32) for _ in range(args.streams)]
    streams = begin_streams(args, prompts)
    first = [len(stream.times) for stream in streams]
    for stream, count in zip(streams, first, strict=True):
        stream.wait_for(count + args.before)
    long = Stream(args, prompt(args.prompt), 1)
    long.wait_for(1)
    end_streams(args, streams)
    ttft = long.times[0] - long.begun
    before, during = [], []
    for stream, count in zip(streams, first, strict=True):
        came = sum(time < long.begun for time in stream.times)
        before.append(range(count, came - 1))
        during.append(range(came, sum(time <= long.times[0] for time in stream.times) - 1))
    with_it, before_it = gaps(streams, during), gaps(streams, before)
    if not with_it:
        sys.exit("the streams had no token while the prompt was read: give a longer --prompt")
    streams = begin_streams(args, prompts)
    for stream, of in zip(streams, during, strict=True):
        stream.wait_for(of.stop + 1)
    end_streams(args, streams)
    without = gaps(streams, during)
    return {"itl_with": p95(with_it), "itl_without": p95(without), "itl_ratio": p95(with_it) / p95(without),
            "itl_median_ratio": statistics.median(with_it) / statistics.median(without),
            "itl_over_before": p95(with_it) / p95(before_it),
            "ttft_alone": alone_ttft, "ttft_with": ttft, "ttft_ratio": ttft / alone_ttft}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="URL of a server that runs, without /v1")
    parser.add_argument("--model", help="the model's name there")
    parser.add_argument("--gguf", default=quern_serve.SMOLLM2, help="file of the model to start quern-serve with, of those that hack/setup fetches")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=8000, help="tokens of the long prompt")
    parser.add_argument("--before", type=int, default=64, help="tokens of each stream before it comes")
    parser.add_argument("--stream-tokens", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows in seconds that the script works, and no more")
    if "--quick" in sys.argv:
        parser.set_defaults(**QUICK)
    args, options = parser.parse_known_args()  # the rest goes to quern-serve
    server = None
    if not args.server:
        server = quern_serve.Server(quern_serve.model(args.gguf), "--threads", "2", "--kv-memory", "1GiB", *options)
        args.server, args.model = server.url, server.name
    elif options:
        parser.error(f"unknown arguments: {' '.join(options)}")
    try:
        rng, runs = random.Random(1), []
        for i in range(args.repeats):
            runs.append(once(args, rng))
            print(f"run {i + 1} of {args.repeats}: " + ", ".join(f"{k} {v:.3f}" for k, v in runs[-1].items()), file=sys.stderr)
    finally:
        if server:
            server.signal()
            server.wait()
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    if args.json:
        print(json.dumps({"median": median, "runs": runs, "streams": args.streams, "prompt": args.prompt, "model": args.model}))
    else:
        print(f"ITL p95 {median['itl_ratio']:.2f} times, median {median['itl_median_ratio']:.2f} times (p95 {median['itl_over_before']:.2f} "
              f"times what it was before the prompt came); "
              f"TTFT {median['ttft_ratio']:.2f} times what it is alone")


if __name__ == "__main__":
    main()
