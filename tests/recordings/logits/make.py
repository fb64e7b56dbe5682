#!/usr/bin/env python3
"""Makes the recordings that tests/integration/logits compares the forward pass with.

    $(hack/setup --print recordings) make.py ~/.cache/quern/models/*.gguf        (some 20 minutes on two cores)

For each model and each of the prompts (prompts.json, and longer ones made of them, up to 2,048 tokens) at selected
positions: the 256 most likely next tokens of the float32 reference (reference.py, on the dequantised weights) with
their log-probabilities. Everything beyond those 256 counts as one more outcome, in every KL divergence that is taken: the
reference's with itself in float64, llama.cpp's, and ours in the test. llama.cpp's own divergence from the reference is
recorded beside it, as the bar, with its logit difference, which shows that the reference is the same model. Recorded
too: the most that float32 itself, and that storing K and V in 16 bits, changes a logit of the reference (prompts of up to
64 tokens). Nearer ties than those two together may be decided either way.

File: one line of JSON, then the binary arrays it describes, little-endian: for each position uint32 ids[k], then
float32 log-probabilities[k]."""

import argparse
import json
import pathlib
import sys
import time

import llama_cpp
import numpy as np

import reference

HERE = pathlib.Path(__file__).parent
TOP = 256
POSITIONS = 12
LONG = {"long-600": 600, "long-1024": 1024, "long-2048": 2048}
CHECKED_IN_FLOAT64 = 64  # prompts up to this many tokens


def make_prompts(llm):
    prompts = json.loads((HERE / "prompts.json").read_text())
    result = {}
    for prompt in prompts:
        result[prompt["name"]] = llm.tokenize(prompt["text"].encode(), add_bos=True, special=True)
    every = "\n\n".join(p["text"] for p in prompts)
    tokens = llm.tokenize("\n\n".join([every, "Once more, from the start.", every[::-1], every]).encode(), add_bos=True)
    for name, length in LONG.items():
        assert len(tokens) >= length, (name, len(tokens))
        result[name] = tokens[:length]
    return result


def select_positions(count):
    wanted = POSITIONS if count <= 512 else 2 * POSITIONS
    return sorted({int(i) for i in np.linspace(min(1, count - 1), count - 1, wanted).round()})


def llama_cpp_logits(llm, tokens, positions):
    llm.reset()
    llm.eval(tokens)
    return np.array(llm.scores[positions], dtype=np.float64)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def divergence(p_log, q_log, ids):
    """KL(p || q) over `ids` and the rest as one outcome."""
    p, q = np.exp(p_log[ids]), np.exp(q_log[ids])
    p_rest, q_rest = max(1 - p.sum(), 1e-12), max(1 - q.sum(), 1e-12)
    return float((p * (p_log[ids] - q_log[ids])).sum() + p_rest * np.log(p_rest / q_rest))


def summary(values):
    return {"mean": float(np.mean(values)), "p99": float(np.percentile(values, 99)), "max": float(np.max(values))}


def record(path, threads):
    weights = reference.Weights(path)
    doubles = reference.Weights(path, np.float64)
    halves = reference.Weights(path, kv_dtype=np.float16)
    halves.cache = weights.cache
    llm = llama_cpp.Llama(str(path), n_ctx=2048, n_batch=512, n_threads=threads, n_threads_batch=threads, logits_all=True, verbose=False)
    header = {"model": path.name, "top": TOP, "llama_cpp": llama_cpp.__version__, "prompts": []}
    arrays, peer_kl, own_kl, own_error, kv_error, peer_difference, peer_disagrees = [], [], [], [], [], [], 0
    for name, tokens in make_prompts(llm).items():
        start = time.monotonic()
        positions = select_positions(len(tokens))
        logits = reference.forward(weights, np.array(tokens), positions)
        peer = llama_cpp_logits(llm, tokens, positions)
        ours, theirs = log_softmax(logits), log_softmax(peer)
        exact = None
        if len(tokens) <= CHECKED_IN_FLOAT64:
            exact = reference.forward(doubles, np.array(tokens), positions)
            own_error.append(np.abs(exact - logits).max())
            kv_error.append(np.abs(reference.forward(halves, np.array(tokens), positions) - logits).max())
        for row in range(len(positions)):
            ids = np.argsort(-logits[row], kind="stable")[:TOP]
            arrays.append(ids.astype("<u4").tobytes() + ours[row][ids].astype("<f4").tobytes())
            peer_kl.append(divergence(ours[row], theirs[row], ids))
            peer_difference.append(np.abs(peer[row] - logits[row]).max())
            peer_disagrees += int(peer[row].argmax() != ids[0])
            if exact is not None:
                own_kl.append(divergence(log_softmax(exact[row]), ours[row], ids))
        header["prompts"].append({"name": name, "tokens": [int(t) for t in tokens], "positions": positions})
        print(f"{path.name} {name}: {len(tokens)} tokens, llama.cpp KL {np.mean(peer_kl[-len(positions):]):.2e}, "
              f"{time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    header["llama_cpp_kl"] = summary(peer_kl)
    header["llama_cpp_top1_differs"] = peer_disagrees
    header["llama_cpp_logit_difference"] = summary(peer_difference)
    header["reference_kl"] = summary(own_kl)
    header["reference_error"] = float(np.max(own_error))  # of a logit: float32 against float64
    header["kv_f16_error"] = float(np.max(kv_error))  # of a logit: what storing K and V in 16 bits alone does
    return header, arrays


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--threads", type=int, default=2, help="llama.cpp's threads")
    args = parser.parse_args()
    for path in args.models:
        header, arrays = record(path, args.threads)
        out = args.out / (path.stem + ".logits")
        out.write_bytes(json.dumps(header, separators=(",", ":")).encode() + b"\n" + b"".join(arrays))
        shown = {k: v for k, v in header.items() if k != "prompts"}
        print(f"{out}: {out.stat().st_size} bytes, {len(arrays)} positions, {json.dumps(shown)}")


if __name__ == "__main__":
    main()
