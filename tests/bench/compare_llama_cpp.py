#!/usr/bin/env python3
"""Tokens per second of quern-eval and of llama.cpp (PyPI llama-cpp-python) on the same machine, in turns.

    $(hack/setup --print recordings) tests/bench/compare_llama_cpp.py build/release/bin/quern-eval ~/.cache/quern/models/*.gguf

Needs hack/setup --recordings. Each run is a process of its own; the two alternate, so that what else the
machine does meets both; the figures are medians, and the ratio is ours / llama.cpp's. The same work for both: prompts of
random tokens, one after the other; then steps with one token of every sequence, logits computed, none sampled. Beside the
clock's seconds stand the processors', over all threads, which other load disturbs least (compare them with --threads 1:
threads that spin while they wait count as working). Each round also measures what the machine reads and multiplies at most
(`quern-eval limits`), and what ours reaches of that is printed: of the memory, as if a step read the weights once and nothing else;
of the 16-bit integer multiplications, as if it computed the matrix products alone. (Both models use their embedding as the output
head, too; a prompt's tokens but the last need no head.) Exits with 1 when a decode ratio is below --at-least."""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time


def peer(args):
    """One run of llama.cpp: prints the same JSON as `quern-eval bench`."""
    import llama_cpp as lc

    lc.llama_backend_init()
    quiet = lc.llama_log_callback(lambda level, text, data: None)
    lc.llama_log_set(quiet, None)
    start = time.monotonic()
    model = lc.llama_model_load_from_file(str(args.models[0]).encode(), lc.llama_model_default_params())
    load_seconds = time.monotonic() - start
    vocabulary = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    results = []
    for batch_size in args.batch:
        params = lc.llama_context_default_params()
        params.n_ctx = batch_size * (args.prompt + args.generate)
        params.n_batch = params.n_ubatch = 512
        params.n_seq_max = batch_size
        params.n_threads = params.n_threads_batch = args.threads
        context = lc.llama_init_from_model(model, params)
        batch = lc.llama_batch_init(512, 0, 1)
        rng = random.Random(1)

        def step(rows):
            """rows: (sequence, position, wants logits)"""
            batch.n_tokens = len(rows)
            for i, (sequence, position, logits) in enumerate(rows):
                batch.token[i] = rng.randrange(vocabulary)
                batch.pos[i] = position
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = sequence
                batch.logits[i] = logits
            assert lc.llama_decode(context, batch) == 0
            lc.llama_synchronize(context)

        begin, cpu_begin = time.monotonic(), time.process_time()
        for sequence in range(batch_size):
            for done in range(0, args.prompt, 512):
                last = min(args.prompt, done + 512)
                step([(sequence, position, position == last - 1) for position in range(done, last)])
        middle, cpu_middle = time.monotonic(), time.process_time()
        for i in range(args.generate):
            step([(sequence, args.prompt + i, True) for sequence in range(batch_size)])
        end, cpu_end = time.monotonic(), time.process_time()
        results.append({"batch": batch_size,
                        "prefill_tokens_per_second": batch_size * args.prompt / (middle - begin),
                        "decode_tokens_per_second": batch_size * args.generate / (end - middle),
                        "prefill_tokens_per_cpu_second": batch_size * args.prompt / (cpu_middle - cpu_begin),
                        "decode_tokens_per_cpu_second": batch_size * args.generate / (cpu_end - cpu_middle)})
        lc.llama_batch_free(batch)
        lc.llama_free(context)
    peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps({"load_seconds": load_seconds, "peak_resident_bytes": peak, "results": results}))


def run(command, environment=None):
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **(environment or {})})
    return json.loads(done.stdout.splitlines()[-1])


def compare(args, model):
    shape = ["--batch", ",".join(map(str, args.batch)), "--prompt", str(args.prompt), "--generate", str(args.generate),
             "--threads", str(args.threads)]
    commands = {"quern": [str(args.quern_eval), "bench", str(model), *shape, "--json"],
                "llama.cpp": [sys.executable, __file__, "--peer", str(args.quern_eval), str(model), *shape]}
    runs, limits = {name: [] for name in commands}, []
    for _ in range(args.rounds):
        limits.append(run([str(args.quern_eval), "limits", "--threads", str(args.threads), "--runs", "5", "--json"]))
        for name, command in commands.items():
            runs[name].append(run(command))
    # A machine without the vector instructions has no figure for multiplications.
    bytes_per_second = max(limit["read"]["best"] for limit in limits)
    operations_per_second = max(limit["int16"]["best"] for limit in limits) if "int16" in limits[0] else None
    shape = runs["quern"][0]
    rows = []
    for i, batch in enumerate(args.batch):
        for what in ("decode", "prefill"):
            row = {"model": model.name, "what": what, "batch": batch}
            for unit, label in (("second", ""), ("cpu_second", "_cpu")):
                values = {name: [r["results"][i][f"{what}_tokens_per_{unit}"] for r in runs[name]] for name in runs}
                medians = {name: statistics.median(v) for name, v in values.items()}
                row |= {name + label: median for name, median in medians.items()}
                row |= {"ratio" + label: medians["quern"] / medians["llama.cpp"], "runs" + label: values}
            per_token = 2 * (shape["parameters"] - (shape["head_parameters"] if what == "prefill" else 0))
            row["of_compute"] = operations_per_second and row["quern"] * per_token / operations_per_second
            row["of_memory"] = row["quern"] / batch * shape["weight_bytes"] / bytes_per_second if what == "decode" else None
            rows.append(row)
            print(f"{model.name}  {what:7} batch {batch}: quern {row['quern']:7.1f}  llama.cpp {row['llama.cpp']:7.1f} "
                  f"tokens/s  ratio {row['ratio']:.2f}   (per CPU second {row['quern_cpu']:.1f}, "
                  f"{row['llama.cpp_cpu']:.1f}, ratio {row['ratio_cpu']:.2f})"
                  + "".join(f"   {row[key]:.0%} of the {name}" for key, name in (("of_memory", "memory's limit"), ("of_compute", "int16 limit"))
                            if row[key] is not None), flush=True)
    print(f"{model.name}  limits: read {bytes_per_second / 1e9:.1f} GB/s"
          + (f", int16 {operations_per_second / 1e9:.0f} Gop/s" if operations_per_second else ""), flush=True)
    peaks = {name: max(r["peak_resident_bytes"] for r in runs[name]) for name in runs}
    loads = {name: statistics.median(r["load_seconds"] for r in runs[name]) for name in runs}
    print(f"{model.name}  peak resident MiB: " + ", ".join(f"{n} {p / 2**20:.0f}" for n, p in peaks.items())
          + "; load s: " + ", ".join(f"{n} {s:.2f}" for n, s in loads.items()), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quern_eval", type=pathlib.Path)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--batch", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8])
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-least", type=float, default=0.5, help="smallest decode ratio that is accepted")
    parser.add_argument("--json", type=pathlib.Path, help="write every figure there")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        peer(args)
        return 0
    rows = [row for model in args.models for row in compare(args, model)]
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return int(any(row["what"] == "decode" and row["ratio"] < args.at_least for row in rows))


if __name__ == "__main__":
    sys.exit(main())
