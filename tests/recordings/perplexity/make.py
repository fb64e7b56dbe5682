#!/usr/bin/env python3
"""Makes the recordings that tests/contract/runtime/test_eval.py compares `quern-eval perplexity` with.

    $(hack/setup --print recordings) tests/recordings/perplexity/make.py ~/.cache/quern/models/*.gguf

For each model the perplexity of text.txt (our licence, and the texts of ../logits/prompts.json), as llama.cpp's perplexity program
takes it: chunks of 512 tokens, each from an empty context and begun with the beginning-of-sequence token where the model
wants one, the second half of each scored. Once by llama.cpp itself, once by the float32 reference of ../logits."""

import argparse
import json
import pathlib
import sys

import llama_cpp
import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "logits"))
import reference  # noqa: E402

CHUNK = 512


def losses(logits, following):
    logits = logits.astype(np.float64)
    top = logits.max(axis=-1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=-1)) + top
    return total - logits[np.arange(len(following)), following]


def record(path, text, threads):
    llm = llama_cpp.Llama(str(path), n_ctx=CHUNK, n_batch=CHUNK, n_threads=threads, n_threads_batch=threads, logits_all=True,
                          verbose=False)
    tokens = llm.tokenize(text.encode(), add_bos=True, special=False)
    weights = reference.Weights(path)
    positions = list(range(CHUNK // 2, CHUNK - 1))
    theirs, exact = [], []
    begins = llama_cpp.llama_vocab_get_add_bos(llama_cpp.llama_model_get_vocab(llm.model))
    for start in range(0, len(tokens) // CHUNK * CHUNK, CHUNK):
        chunk = list(tokens[start : start + CHUNK])
        if begins:
            chunk[0] = llm.token_bos()
        following = np.array(chunk)[CHUNK // 2 + 1 :]
        llm.reset()
        llm.eval(chunk)
        theirs.append(losses(np.array(llm.scores[positions]), following))
        exact.append(losses(reference.forward(weights, np.array(chunk), positions), following))
        print(f"{path.name}: chunk {len(theirs)}, llama.cpp {np.exp(np.mean(theirs)):.4f}, float32 {np.exp(np.mean(exact)):.4f}",
              file=sys.stderr, flush=True)
    return {"chunks": len(theirs), "tokens_scored": int(np.size(theirs)), "llama_cpp": float(np.exp(np.mean(theirs))),
            "reference": float(np.exp(np.mean(exact))), "llama_cpp_version": llama_cpp.__version__}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2, help="llama.cpp's threads")
    args = parser.parse_args()
    prompts = json.loads((HERE.parent / "logits" / "prompts.json").read_text())
    licence = (HERE.parents[2] / "LICENSE").read_text()
    text = "\n\n".join([licence, *(prompt["text"] for prompt in prompts if prompt["name"] != "chat")]) + "\n"
    (HERE / "text.txt").write_text(text)
    found = {path.name: record(path, text, args.threads) for path in args.models}
    (HERE / "recordings.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
