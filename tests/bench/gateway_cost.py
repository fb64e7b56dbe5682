#!/usr/bin/env python3
"""What the gateway adds: the same requests straight to a quern-serve and through a quern-gateway before it, in turns.

    $(hack/setup --print python) tests/bench/gateway_cost.py [--rounds 5] [--requests 400] [--threads 1]

Each round sends so many requests each way, one after the other over one kept connection, switching ways after every request so
that what else the machine does falls on both alike: GET /v1/models, which costs the server next to nothing, and a completion of
one token, streamed, of which the time to the first byte of the answer counts. Prints p50 each way and what is added, of each
round, and medians. The client's own time is in both.
"""

import argparse
import http.client
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import quern_gateway  # noqa: E402
import quern_serve  # noqa: E402


def timed(connection, method: str, path: str, body: bytes | None) -> float:
    """Milliseconds until the answer's head has come; the rest is read, too."""
    start = time.perf_counter()
    connection.request(method, path, body)
    response = connection.getresponse()
    took = time.perf_counter() - start
    response.read()
    if response.status != 200:
        sys.exit(f"{path} answers {response.status}")
    return took * 1000


def medians(ways, count: int, *request) -> tuple[float, float]:
    times = [[], []]
    for number in range(count):
        for way in (0, 1) if number % 2 else (1, 0):
            times[way].append(timed(ways[way], *request))
    return statistics.median(times[0]), statistics.median(times[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=quern_serve.SMOLLM2, help="file in the models' folder [%(default)s]")
    for name, value in (("rounds", 5), ("requests", 400), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--quick", action="store_true", help="few requests: shows in seconds that the script works, and no more")
    if "--quick" in sys.argv:
        parser.set_defaults(rounds=1, requests=20)
    args = parser.parse_args()
    added = {"models": [], "completion": []}
    with quern_serve.Server(quern_serve.model(args.model), "--threads", str(args.threads), "--kv-memory", "128MiB") as server, \
            quern_gateway.Gateway([server]) as gateway:
        ways = [http.client.HTTPConnection(each.url.removeprefix("http://"), timeout=quern_serve.PATIENCE) for each in (server, gateway)]
        body = json.dumps({"model": server.name, "prompt": "a", "max_tokens": 1, "stream": True}).encode()
        kinds = {"models": (args.requests, "GET", "/v1/models", None),
                 "completion": (max(args.requests // 10, 5), "POST", "/v1/completions", body)}
        for number in range(1, args.rounds + 1):
            for kind, (count, *request) in kinds.items():
                direct, through = medians(ways, count, *request)
                added[kind].append(through - direct)
                print(f"round {number}: {kind} p50 direct {direct:.3f} ms, through the gateway {through:.3f} ms "
                      f"({through / direct:.3f})", flush=True)
        seconds = gateway.metric("quern_gateway_overhead_seconds_sum") / gateway.metric("quern_gateway_overhead_seconds_count")
    print(f"medians: added to models {statistics.median(added['models']):.3f} ms, to a completion "
          f"{statistics.median(added['completion']):.3f} ms; until a request goes on, by its own count {seconds * 1000:.3f} ms")


if __name__ == "__main__":
    main()
