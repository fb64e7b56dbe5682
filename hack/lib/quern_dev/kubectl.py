"""kubectl and helm, run for real, for the demo and the end-to-end tests."""

import json
import os
import subprocess
import time
from pathlib import Path

import yaml

from . import console, golang

_TOLERATED_SECONDS = 15


class CommandError(console.Failure):
    """A command that failed; str() is what it said on stderr."""


def _run(command: list[str], timeout: float, **options) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"no answer within {timeout:.0f} s: {' '.join(command)}") from error
    if done.returncode:
        raise CommandError(done.stderr.strip() or f"exit code {done.returncode}: {' '.join(command)}")
    return done.stdout


class Kubectl:
    """One cluster, by kubeconfig and context (None: the current one). Thread-safe."""

    def __init__(self, kubeconfig: Path | None, context: str | None = None, program: str | Path = "kubectl"):
        self.kubeconfig, self.context, self._program = kubeconfig, context, program

    def _environment(self) -> dict:
        return {**os.environ, **({"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {})}

    def run(self, *arguments, stdin: str | None = None, timeout: float = 60) -> str:
        command = [str(self._program), *(["--context", self.context] if self.context else []), *map(str, arguments)]
        source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return _run(command, timeout, env=self._environment(), **source)

    def start(self, *arguments) -> subprocess.Popen:
        """A kubectl that goes on until it is ended, with its output on .stdout."""
        command = [str(self._program), *(["--context", self.context] if self.context else []), *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                stdin=subprocess.DEVNULL, env=self._environment())

    def helm(self, program: Path, *arguments, timeout: float = 180) -> str:
        command = [str(program), *(["--kube-context", self.context] if self.context else []), *map(str, arguments)]
        return _run(command, timeout, env=self._environment(), stdin=subprocess.DEVNULL)

    def get(self, kind: str, name: str, namespace: str = "default"):
        """The object, or None if there is none."""
        try:
            return json.loads(self.run("-n", namespace, "get", kind, name, "-o", "json"))
        except CommandError as error:
            if "NotFound" in str(error) or "not found" in str(error):
                return None
            raise

    def list(self, kind: str, namespace: str | None = "default", selector: str = "", fields: str = "") -> list[dict]:
        where = ["-n", namespace] if namespace else ["--all-namespaces"]
        options = [*(["-l", selector] if selector else []), *(["--field-selector", fields] if fields else [])]
        return json.loads(self.run("get", kind, *where, *options, "-o", "json"))["items"]

    def apply(self, *objects: dict, namespace: str = "default") -> str:
        return self.run("-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump_all(objects))


def program(part: str, name: str) -> Path:
    return golang.program(part, name)


def condition(endpoint: dict | None, kind: str) -> dict:
    """The condition of this type, or {}."""
    conditions = ((endpoint or {}).get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind), {})


def is_ready(endpoint: dict | None) -> bool:
    """Ready, as observed at the present generation."""
    ready = condition(endpoint, "Ready")
    return ready.get("status") == "True" and \
        ready.get("observedGeneration", 0) >= endpoint["metadata"].get("generation", 0)


def wait(check, seconds: float, what: str, every: float = 0.5):
    """Returns the first true value of check(); Failure with `what` (a text, or a function of none) after `seconds`.

    A check that fails with CommandError or OSError has not come true yet: an API server on a busy machine now and
    then gives no answer in time. Failing for _TOLERATED_SECONDS without a break, its error comes out.
    """
    deadline, failing_since = time.monotonic() + seconds, None
    while True:
        try:
            value, failing_since = check(), None
            if value:
                return value
        except (CommandError, OSError):
            failing_since = failing_since or time.monotonic()
            if time.monotonic() > min(deadline, failing_since + _TOLERATED_SECONDS):
                raise
        if time.monotonic() > deadline:
            raise console.Failure(f"after {seconds:.0f} s still waiting for {what() if callable(what) else what}")
        time.sleep(every)
