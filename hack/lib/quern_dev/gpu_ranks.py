"""A model over several GPUs beside the same on one: greedy texts of quern-serve. What hack/gpu-check asks of tensor parallelism.

As a program: gpu_ranks.py QUERN_SERVE MODEL RANKS TOKENS [OPTION...]; the last line that it prints says what was seen.
"""

import ctypes
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

PROMPTS = ("The capital of France is", "Once upon a time, there was a", "1, 2, 3, 4, 5,")
# Of the difference between the two likeliest tokens' log-probabilities: below it the roundings of 16-bit sums may decide.
UNCERTAIN = 0.5
_PR_SET_PDEATHSIG = 1  # Linux' number
_PATIENCE = 240  # seconds of a request, and of loading


def why_no_nccl(folder: Path) -> str:
    """"" where libnccl.so.2 can be opened: the system's, or the one in `folder`."""
    try:
        ctypes.CDLL(str(folder / "libnccl.so.2") if (folder / "libnccl.so.2").exists() else "libnccl.so.2")
    except OSError as error:
        return f"{error}: install NVIDIA's libnccl2, or let hack/images --only serve-cuda fetch it"
    return ""


def _complete(url: str, name: str, prompt: str, tokens: int) -> dict:
    body = {"model": name, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 2, "ignore_eos": True}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_PATIENCE) as reply:
        return json.load(reply)["choices"][0]["logprobs"]


def _wait_ready(url: str) -> None:
    """A moment after the log says so."""
    for _ in range(100):
        try:
            urllib.request.urlopen(url + "/health/ready", timeout=_PATIENCE).close()
            return
        except urllib.error.HTTPError:
            time.sleep(0.05)


def _end_with_parent() -> None:
    """Also where that is killed, as a step that takes too long is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _show(lines) -> None:
    for line in lines:
        print(line, end="", flush=True)


def _texts(command: list, name: str, tokens: int) -> list[dict]:
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_end_with_parent) as server:
        # On, while requests run: nobody would read a full pipe.
        rest = threading.Thread(target=_show, args=(server.stderr,))
        try:
            url = None
            for line in server.stderr:
                print(line, end="", flush=True)
                found = re.search(r"listening: API (http://\S+:\d+)/v1", line)
                url = found[1] if found else url
                if " ready: " in line:
                    rest.start()
                    _wait_ready(url)
                    return [_complete(url, name, prompt, tokens) for prompt in PROMPTS]
        finally:
            server.terminate()
            server.wait(timeout=60)
            if rest.ident:
                rest.join()
    raise SystemExit(f"quern-serve ended with exit code {server.returncode}, and not in the way that it should")


def visible_gpus(there: int, variable: str | None) -> int:
    """How many of so many GPUs CUDA shows a program with this CUDA_VISIBLE_DEVICES: those before the first that is none."""
    if variable is None:
        return there
    names = [name.strip() for name in variable.split(",")]
    return len(list(itertools.takewhile(lambda name: name.startswith(("GPU-", "MIG-")) or name.isdigit() and int(name) < there, names)))


def compare(alone: list[dict], split: list[dict], uncertain: float = UNCERTAIN) -> tuple[bool, str]:
    """Whether texts part only where two tokens are about as likely as each other, and a third of all tokens come before; and in words.

    Of the API's `logprobs` objects. Tokens that are the same must be about as likely in both.
    """
    same, total = 0, 0
    for one, other in zip(alone, split, strict=True):
        total += len(one["tokens"])
        for i, (a, b) in enumerate(zip(one["tokens"], other["tokens"], strict=True)):
            if a != b:
                best = sorted(one["top_logprobs"][i].values(), reverse=True)
                if best[0] - best[1] >= uncertain:
                    return False, f"token {i} is {b!r} rather than {a!r}, which is clear"
                break
            if abs(one["token_logprobs"][i] - other["token_logprobs"][i]) >= uncertain:
                return False, f"token {i}, {a!r}, has the log-probability {other['token_logprobs'][i]} rather than {one['token_logprobs'][i]}"
            same += 1
    note = f"{same} of {total} greedy tokens are those of one GPU, the others come after two that are about as likely"
    return (True, note) if same * 3 >= total else (False, f"{note}: fewer than a third says nothing")


def main(program: str, model: str, ranks: str, tokens: str, *options: str) -> int:
    command = [program, model, "--device", "cuda", "--port", "0", "--admin-port", "0", "--max-context-tokens", "256", "--kv-memory", "64MiB",
               *options]
    name = Path(model).stem
    alone = _texts(command, name, int(tokens))
    ok, note = compare(alone, _texts([*command, "--tensor-parallel-size", ranks], name, int(tokens)))
    print(note)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
