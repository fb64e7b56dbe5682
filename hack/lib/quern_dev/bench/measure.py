"""Runs both sides of a workload, in turns, and the machine's limits beside them."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .. import console
from .workloads import Workload


@dataclass(frozen=True)
class Setting:
    """Of llama.cpp: what its documentation offers to tune on a CPU and what matters here."""

    threads: int
    flash_attention: bool
    ubatch: int

    def __str__(self) -> str:
        return f"-t {self.threads} -fa {'on' if self.flash_attention else 'off'} -ub {self.ubatch}"


def settings(threads: int) -> list[Setting]:
    """The sweep. One thread fewer than there are processors is what its barriers like beside other load."""
    counts = sorted({threads, max(1, threads - 1)}, reverse=True)
    return [Setting(*one) for one in itertools.product(counts, (True, False), (128, 512))]


@dataclass
class Programs:
    quern: Path  # the folder of this project's programs
    peer: Path  # of llama.cpp's
    models: Path
    threads: int


@dataclass
class Figure:
    """Tokens a second, of each round."""

    workload: Workload
    quern: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    setting: Setting | None = None
    sweep: dict[str, float] = field(default_factory=dict)
    facts: dict = field(default_factory=dict)  # parameters and bytes, as quern-eval says


def run(command, environment=None) -> str:
    """A program's standard output. Raises Failure with the end of what it wrote otherwise."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False,
                          env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise console.Failure(f"{Path(command[0]).name} ended with exit code {done.returncode}:\n  {' '.join(map(str, command))}\n"
                              f"{(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout


def limits(programs: Programs) -> dict:
    """What the machine reads and computes at most: {"read": bytes/s, "int8": operations/s, ...}."""
    found = json.loads(run([programs.quern / "quern-eval", "limits", "--threads", programs.threads, "--runs", 5, "--json"]))
    return {name: value["best"] for name, value in found.items() if isinstance(value, dict)}


def run_quern(programs: Programs, workload: Workload) -> tuple[float, dict]:
    report = json.loads(run([programs.quern / "quern-eval", "bench", programs.models / workload.model, "--batch", workload.batch,
                             "--prompt", workload.prompt, "--generate", workload.generate, "--threads", programs.threads, "--top-k", workload.top_k,
                             "--json"]))
    (result,) = report.pop("results")
    return result[f"{workload.phase}_tokens_per_second"], report


def run_peer(programs: Programs, workload: Workload, setting: Setting) -> float:
    model = programs.models / workload.model
    if workload.phase == "prefill":
        out = run([programs.peer / "llama-bench", "-m", model, "-p", workload.prompt, "-n", 0, "-r", 1, "-t", setting.threads,
                   "-fa", int(setting.flash_attention), "-ub", setting.ubatch, "-b", 2048, "-o", "json"])
        return json.loads(out)[0]["avg_ts"]
    context = workload.batch * (workload.prompt + workload.generate)
    out = run([programs.peer / "llama-batched-bench", "-m", model, "-c", context + 256, "-b", 2048, "-ub", setting.ubatch,
               "-npp", workload.prompt, "-ntg", workload.generate, "-npl", workload.batch, "-t", setting.threads,
               "-fa", "on" if setting.flash_attention else "off", "--output-format", "jsonl"])
    return json.loads(next(line for line in out.splitlines() if line.startswith("{")))["speed_tg"]


def best_setting(programs: Programs, workload: Workload, figure: Figure, beside) -> Setting:
    """Of the sweep, one run of each. What -ub says matters to prompts alone, which are multiplications: all threads do them best."""
    tried = settings(programs.threads)
    if workload.phase == "decode":
        tried = [one for one in tried if one.ubatch == 512]
    else:
        tried = [one for one in tried if one.threads == programs.threads]
    for one in tried:
        with beside():
            figure.sweep[str(one)] = run_peer(programs, workload, one)
    return max(tried, key=lambda one: figure.sweep[str(one)])


def compare(programs: Programs, workload: Workload, rounds: int, seen: list[dict], beside=contextlib.nullcontext) -> Figure:
    """Both, in turns, after the sweep; `seen` gets the limits of each round. `beside` is other load, present in each run."""
    figure = Figure(workload)
    figure.setting = best_setting(programs, workload, figure, beside)
    for number in range(rounds):
        seen.append(limits(programs))
        for ours in (True, False) if number % 2 == 0 else (False, True):
            with beside():
                if ours:
                    rate, figure.facts = run_quern(programs, workload)
                    figure.quern.append(rate)
                else:
                    figure.peer.append(run_peer(programs, workload, figure.setting))
    return figure


@contextlib.contextmanager
def busy_processes(count: int):
    """So many processes that want a whole processor each, at the usual priority."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
