#!/usr/bin/env python3
"""What all but the forward pass takes of a decode step of one request, for each way of sampling.

    $(hack/setup --print python) tests/bench/sampling_cost.py [--rounds 5] [--model FILE] [--threads 2]

Runs `quern-serve bench --batch 1` once a round for each way, in turns, and prints the medians of decode_overhead_share as a
table. The prompts are random, so that many tokens are likely, and with temperature 2 nearly all.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import quern_serve  # noqa: E402

WAYS = {
    "greedy": "--temperature 0",
    "temperature 0.8": "--temperature 0.8",
    "0.8, top-k 40": "--temperature 0.8 --top-k 40",
    "0.8, top-p 0.95": "--temperature 0.8 --top-p 0.95",
    "0.8, min-p 0.05": "--temperature 0.8 --min-p 0.05",
    "0.8, typical-p 0.9": "--temperature 0.8 --typical-p 0.9",
    "temperature 2": "--temperature 2",
    "2, top-p 0.95": "--temperature 2 --top-p 0.95",
    "2, top-p 0.05": "--temperature 2 --top-p 0.05",
    "2, typical-p 0.9": "--temperature 2 --typical-p 0.9",
    "2, typical-p 0.05": "--temperature 2 --typical-p 0.05",
    "greedy, all three penalties": "--temperature 0 --repetition-penalty 1.1 --frequency-penalty 0.5 --presence-penalty 0.5",
    "0.8, top-p 0.95, all three penalties":
        "--temperature 0.8 --top-p 0.95 --repetition-penalty 1.1 --frequency-penalty 0.5 --presence-penalty 0.5",
    "0.8, top-p 0.95, 300 biases": "--temperature 0.8 --top-p 0.95 --biased-tokens 300",
    "0.8, top-p 0.95, 20 log-probabilities": "--temperature 0.8 --top-p 0.95 --logprobs 20",
}


def share(args, model, options: str) -> float:
    done = subprocess.run([quern_serve.binary(), "bench", model, "--batch", "1", "--prompt", str(args.prompt), "--generate",
                           str(args.generate), "--repeats", "1", "--threads", str(args.threads), "--json", *options.split()],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"quern-serve bench {options} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)["results"][0]["decode_overhead_share"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="file in the models' folder, may be repeated [both that hack/setup fetches]")
    for name, value in (("rounds", 5), ("prompt", 32), ("generate", 128), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows in seconds that the script works, and no more")
    if "--quick" in sys.argv:
        parser.set_defaults(rounds=1, generate=8, model=[quern_serve.SMOLLM2])
    args = parser.parse_args()
    models = args.model or [quern_serve.SMOLLM2, quern_serve.GEMMA]
    shares = {(model, way): [] for model in models for way in WAYS}
    for number in range(1, args.rounds + 1):
        for way, options in WAYS.items():
            for model in models:
                shares[model, way].append(share(args, quern_serve.model(model), options))
        print(f"round {number} of {args.rounds} done", file=sys.stderr)
    print("| | " + " | ".join(models) + " |\n|---|" + "---|" * len(models))
    for way in WAYS:
        figures = [f"{statistics.median(shares[model, way]):.1%}" for model in models]
        print(f"| {way} | " + " | ".join(figures) + " |")


if __name__ == "__main__":
    main()
