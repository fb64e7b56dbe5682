"""Over HTTP: clients that ask quern-serve and llama-server for the same, in turns; and what a server needs to start and to hold."""

import contextlib
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from .. import console, kube_api
from .measure import Programs, run

_PATIENCE_SECONDS = 120


@contextlib.contextmanager
def server(command, port: int, log: Path):
    """A server that is ready at /health; yields (process, seconds that it took)."""
    with log.open("wb") as out:
        begin = time.monotonic()
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            yield process, _wait_ready(process, port, log, begin)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(process, port: int, log: Path, begin: float) -> float:
    while time.monotonic() - begin < _PATIENCE_SECONDS:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, urllib.error.URLError):
            path = "/health/ready" if Path(process.args[0]).name == "quern-serve" else "/health"
            if urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).status == 200:
                return time.monotonic() - begin
        time.sleep(0.005)
    raise console.Failure(f"{Path(process.args[0]).name} did not become ready; its log, {log}, ends with:\n"
                          + "\n".join(log.read_text(errors="replace").splitlines()[-10:]))


def quern_command(programs: Programs, model: Path, port: int, sequences: int) -> list:
    return [programs.quern / "quern-serve", model, "--port", port, "--admin-port", 0, "--threads", programs.threads,
            "--max-sequences", sequences]


def peer_command(programs: Programs, model: Path, port: int, sequences: int, tokens: int) -> list:
    return [programs.peer / "llama-server", "-m", model, "--host", "127.0.0.1", "--port", port, "-t", programs.threads,
            "-np", sequences, "-c", sequences * tokens, "-fa", "on", "-b", 2048, "-ub", 512, "--no-ui"]


def ask(programs: Programs, port: int, clients: int, requests: int, tokens: int) -> dict:
    """quern-bench's summary: so many clients, prompts and answers of `tokens` tokens each."""
    out = run([programs.quern / "quern-bench", f"http://127.0.0.1:{port}/v1", "--concurrency", clients, "--requests", requests,
               "--prompt-tokens", tokens, "--output-tokens", tokens, "--warmup", 1, "--quiet", "--json", "-"])
    return json.loads(out)["summary"]


def clients(programs: Programs, model: Path, rounds: int, count: int, requests: int, tokens: int, logs: Path) -> list[dict]:
    """Each round's summaries: {"quern": ..., "peer": ...}."""
    found = []
    for number in range(rounds):
        row = {}
        for name in ("quern", "peer") if number % 2 == 0 else ("peer", "quern"):
            (port,) = kube_api.free_ports(1)
            # llama-server's slots hold a request's tokens with some to spare: its template and words of several tokens.
            command = (quern_command(programs, model, port, count) if name == "quern"
                       else peer_command(programs, model, port, count, 2 * tokens + 64))
            with server(command, port, logs / f"{name}-server.log"):
                row[name] = ask(programs, port, count, requests, tokens)
        found.append(row)
    return found


def starts(programs: Programs, model: Path, rounds: int, logs: Path) -> list[float]:
    """Seconds from quern-serve's start until it is ready, the file in the page cache."""
    model.read_bytes()
    found = []
    for _ in range(rounds):
        (port,) = kube_api.free_ports(1)
        with server(quern_command(programs, model, port, 32), port, logs / "start.log") as (_, seconds):
            found.append(seconds)
    return found


def resident(programs: Programs, model: Path, logs: Path) -> dict:
    """Peak resident memory with 32 clients of 256 tokens each, beside the file and the KV cache that the log states."""
    (port,) = kube_api.free_ports(1)
    log = logs / "memory.log"
    with server([*quern_command(programs, model, port, 32), "--kv-memory", "256MiB"], port, log) as (process, _):
        ask(programs, port, 32, 32, 128)
        status = Path(f"/proc/{process.pid}/status").read_text()
    stated = re.search(r"KV ([0-9.]+) MiB", log.read_text(errors="replace"))
    if stated is None:
        raise console.Failure(f"{log} does not say how large the KV cache is")
    return {"peak_bytes": int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024, "file_bytes": model.stat().st_size,
            "kv_bytes": int(float(stated[1]) * 2**20)}
