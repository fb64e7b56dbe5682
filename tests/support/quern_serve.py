"""Starts the real quern-serve for tests, and asks it over HTTP."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "hack" / "lib"))
from quern_dev import paths  # noqa: E402

PATIENCE = 120  # seconds until a wait for something that must come counts as failed


def binary() -> str:
    """The program under test: of the build that runs the tests, else the release build's."""
    directory = os.environ.get("QUERN_BIN", str(ROOT / "build" / "release" / "bin"))
    return str(Path(directory) / "quern-serve")


def model(name: str) -> str:
    path = paths.models_dir() / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run hack/setup --models")
    return str(path)


SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA = "gemma-3-270m.Q4_K_M.gguf"


def wait_for(condition, what: str, patience: float = PATIENCE):
    """The first true value of condition(); fails with `what` when patience is over."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience} s in vain: {what}")
        time.sleep(0.02)


def run_to_end(*arguments, before_start=None, environment=None):
    """Of a quern-serve that is expected to end by itself: exit code and what it wrote. The rest as of Server."""
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=60, preexec_fn=before_start,
                          env=dict(os.environ, **(environment or {})))


class Server:
    """One quern-serve on free loopback ports (or `port`); `log` grows with its stderr. `before_start` runs in the child, before the
    program, which gets the variables of `environment` beside this process', without those of Quern."""

    def __init__(self, model_path: str, *options: str, ready: bool = True, before_start=None, port: int = 0, environment=None):
        self.name = Path(model_path).stem
        self._start([binary(), model_path, "--port", str(port), "--admin-port", "0", *options], before_start, environment)
        if ready:
            self.wait_ready()

    def _start(self, command: list[str], before_start=None, environment=None):
        """The program, until it has said its ports: as quern-serve and quern-gateway both do."""
        self.program = Path(command[0]).name
        self.log: list[str] = []
        self.process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=before_start,
            env={k: v for k, v in os.environ.items() if not k.startswith("QUERN_")} | (environment or {}))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = wait_for(self._ports, "the line that names the ports")
        self.url, self.admin = found.group(1), found.group(2)

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def _ports(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.program} ended with {self.process.returncode}: {self.log}")
        pattern = re.compile(r"listening: API (http://\S+:\d+)/v1, metrics (http://\S+:\d+)/metrics")
        return next((m for m in map(pattern.search, list(self.log)) if m), None)

    def wait_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.program} ended with {self.process.returncode}: {self.log}")
            return self.get("/health/ready").status_code == 200
        wait_for(ready, "readiness")

    def get(self, path: str, admin: bool = False):
        return requests.get((self.admin if admin else self.url) + path, timeout=PATIENCE)

    def post(self, path: str, body, admin: bool = False, **arguments):
        kind = {"data": body} if isinstance(body, (bytes, str)) else {"json": body}
        return requests.post((self.admin if admin else self.url) + path, timeout=PATIENCE, **kind, **arguments)

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics: 'name{labels}' -> value."""
        samples = {}
        for line in self.get("/metrics", admin=True).text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples called `name` with at least these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(value for sample, value in self.metrics().items()
                   if sample.split("{")[0] == name and all(w in sample for w in wanted))

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        code = self.process.wait(timeout=patience)
        self._reader.join(timeout=10)
        return code

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def cpu_seconds(self) -> float:
        """What all its threads have taken of the processors so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
