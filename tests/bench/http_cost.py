#!/usr/bin/env python3
"""What HTTP costs: the same requests through the engine alone and through the server, in turns.

    $(hack/setup --print python) tests/bench/http_cost.py [--rounds 5] [--batch 32] [--prompt 128] [--generate 128] [--threads 2]

Each round runs `quern-serve bench` (with the server's --max-decode-slowdown) and, against a quern-serve that else is idle,
`quern-bench --concurrency BATCH --requests BATCH`: so many requests at once, of the same lengths. Prints prompt and generated
tokens a second of each round, and medians. The client runs on the same cores: "client taken off" divides by the time without
its processor time, spread over --threads cores. Tokens by the processors' time of quern-serve are what a busy machine disturbs
least; the server's has the client's counting of words in it.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import quern_serve  # noqa: E402

QUICK = {"rounds": 1, "batch": 4, "prompt": 16, "generate": 16}


def run(*command) -> dict:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def engine_alone(args, model) -> dict:
    report = run(quern_serve.binary(), "bench", model, "--batch", args.batch, "--prompt", args.prompt, "--generate",
                 args.generate, "--repeats", 1, "--threads", args.threads, "--max-decode-slowdown", 2, "--json")
    return report["results"][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=quern_serve.SMOLLM2, help="file in the models' folder [%(default)s]")
    for name, value in (("rounds", 5), ("batch", 32), ("prompt", 128), ("generate", 128), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows in seconds that the script works, and no more")
    if "--quick" in sys.argv:
        parser.set_defaults(**QUICK)
    args = parser.parse_args()
    model = quern_serve.model(args.model)
    client = Path(quern_serve.binary()).with_name("quern-bench")
    tokens = args.batch * (args.prompt + args.generate)
    rates = []
    with quern_serve.Server(model, "--threads", str(args.threads), "--max-sequences", str(args.batch)) as server:
        for number in range(1, args.rounds + 1):
            engine = engine_alone(args, model)
            cpu = server.cpu_seconds()
            summary = run(client, server.url + "/v1", "--concurrency", args.batch, "--requests", args.batch, "--prompt-tokens",
                          args.prompt, "--output-tokens", args.generate, "--warmup", 0, "--quiet", "--json", "-")["summary"]
            server_cpu = server.cpu_seconds() - cpu
            if summary["prompt_tokens"] + summary["output_tokens"] != tokens or summary["cached_tokens"]:
                sys.exit(f"the served requests were others: {summary}")
            seconds, client_cpu = summary["seconds"], summary["client_cpu_seconds"]
            alone, by_cpu = engine["total_tokens_per_second"], engine["total_tokens_per_cpu_second"]
            rates.append((alone, tokens / seconds, tokens / (seconds - client_cpu / args.threads), by_cpu, tokens / server_cpu))
            print(f"round {number}: alone {alone:.1f} tokens/s, served {rates[-1][1]:.1f}, client taken off {rates[-1][2]:.1f} "
                  f"(client {client_cpu:.2f} s of {seconds:.1f}); a second of the processors: {by_cpu:.1f} and {rates[-1][4]:.1f}",
                  flush=True)
    alone, served, adjusted, by_cpu, served_by_cpu = (statistics.median(column) for column in zip(*rates))
    print(f"medians: alone {alone:.1f}, served {served:.1f} ({served / alone:.3f}), client taken off {adjusted:.1f} "
          f"({adjusted / alone:.3f}); a second of the processors {by_cpu:.1f} and {served_by_cpu:.1f} "
          f"({served_by_cpu / by_cpu:.3f})")


if __name__ == "__main__":
    main()
