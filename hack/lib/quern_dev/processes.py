"""Long-running processes that outlive the script that started them.

Each is recorded in <run>/<name>.json with its pid and that pid's start time, so that only a process
that we started is ever signalled, and a pid that was given to somebody else never is.
"""

import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from . import console

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWNET, _CLONE_NEWPID = 0x00020000, 0x40000000, 0x20000000


def _stat(pid: int) -> tuple[str, int, int] | None:
    """(state, threads, start in clock ticks since boot); None if there is no such process."""
    try:
        # After the name in brackets, which may itself hold spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[17]), int(fields[19])


def start_time(pid: int) -> int | None:
    """The process's start in clock ticks since boot; None if there is no such (living) process.

    A process whose first thread has ended (state Z) lives as long as another of its threads does: that one
    still holds its files, its ports among them, and after SIGKILL on a busy machine that is for tens of ms.
    """
    stat = _stat(pid)
    if stat is None:
        return None
    state, threads, start = stat
    return None if state in "ZX" and threads <= 1 else start


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Namespaces:
    """Where to start a process: the namespaces of `holder_pid`."""

    holder_pid: int

    def enter(self, kinds=("mnt", "net", "pid")) -> None:
        """Moves the calling process in. For pid, its children are moved and not itself."""
        descriptors = [os.open(f"/proc/{self.holder_pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
        for kind, descriptor in zip(kinds, descriptors):
            if _libc.setns(descriptor, 0) != 0:
                raise OSError(ctypes.get_errno(), f"setns({kind})")
            os.close(descriptor)


class Registry:
    """The recorded processes of one cluster."""

    def __init__(self, run: Path, logs: Path):
        self.run, self.logs = run, logs

    def _record(self, name: str) -> Path:
        return self.run / f"{name}.json"

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.run.glob("*.json"))

    def read(self, name: str) -> dict | None:
        try:
            return json.loads(self._record(name).read_text())
        except (OSError, ValueError):
            return None

    def pid(self, name: str) -> int | None:
        """The pid if the recorded process still runs (same pid and same start time)."""
        record = self.read(name)
        # A process that had ended before it was recorded has no start time; start times begin anew with each boot.
        if record and record["start_time"] is not None and record.get("boot", _boot()) == _boot() \
                and start_time(record["pid"]) == record["start_time"]:
            return record["pid"]
        return None

    def started_at(self, name: str) -> float:
        """When it was started, as a Unix time; 0 if it was never recorded."""
        record = self.read(name)
        return record["started_at"] if record else 0.0

    def is_current(self, name: str, fingerprint: str) -> bool:
        """True if it runs, is not about to end, and was started from these arguments and settings."""
        pid, record = self.pid(name), self.read(name)
        if pid is None or record["fingerprint"] != fingerprint:
            return False
        stat = _stat(pid)
        return stat is not None and stat[0] not in "ZX"  # with its first thread gone the others follow

    def start(self, name: str, argv, *, fingerprint: str = "", namespaces: Namespaces | None = None, env=None,
              pass_fd: int | None = None, extra: dict | None = None, isolate: bool = False) -> int:
        """Starts a detached process, its output appended to <logs>/<name>.log. Returns its pid.

        `pass_fd` becomes its descriptor 3; every other descriptor is closed. With `isolate` the process is
        the first one of new mount, network and pid namespaces: when it ends, everything in them ends.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        if log.exists() and log.stat().st_size > 20 << 20:
            os.replace(log, log.with_suffix(".log.old"))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _become(argv, log, writer, namespaces, env, pass_fd, isolate)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        if not answer.startswith("pid "):
            raise console.Failure(f"{name} could not be started: {answer or 'no answer'}\n  Command: {argv[0]}")
        pid = int(answer.split()[1])
        record = {"pid": pid, "start_time": start_time(pid), "boot": _boot(), "started_at": time.time(), "fingerprint": fingerprint,
                  "argv": [str(part) for part in argv], **(extra or {})}
        temporary = self._record(name).with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(temporary, self._record(name))
        return pid

    def send(self, name: str, number: int) -> None:
        pid = self.pid(name)
        if pid is not None:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def stop(self, names: list[str], grace_seconds: float) -> None:
        """SIGTERM to all, SIGKILL to those left after the grace, and their records removed."""
        for name in names:
            self.send(name, signal.SIGTERM)
        wait_until(lambda: not any(self.pid(name) for name in names), grace_seconds)
        for name in names:
            self.send(name, signal.SIGKILL)
        if not wait_until(lambda: not any(self.pid(name) for name in names), 10):
            left = [f"{name} (pid {self.pid(name)})" for name in names if self.pid(name)]
            raise console.Failure(f"these processes did not end after SIGKILL: {', '.join(left)}")
        for name in names:
            self._record(name).unlink(missing_ok=True)

    def log_tail(self, name: str, lines: int = 15) -> str:
        try:
            text = (self.logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            return "    (no log)"
        return "\n".join("    " + line[:300] for line in text)


def fingerprint(argv, files=()) -> str:
    """Changes when the arguments, or the contents of the configuration files, change."""
    digest = hashlib.sha256("\0".join(map(str, argv)).encode())
    for path in files:
        digest.update(b"\0" + Path(path).read_bytes())
    return digest.hexdigest()[:16]


def wait_until(condition, seconds: float, interval: float = 0.05) -> bool:
    """Polls until the condition holds; False when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


def _become(argv, log, writer, namespaces, env, pass_fd, isolate) -> None:
    """In the first child: enters the namespaces, forks the process itself, reports its pid, and ends.

    The second fork is what moves into the pid namespace, and it leaves the process to the machine's
    init. fork() returns the pid as this side of the namespace sees it.
    """
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if namespaces:
            namespaces.enter()
        if isolate and _libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWPID) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        pid = os.fork()
        if pid == 0:
            _exec(argv, output, env, pass_fd)
        os.write(writer, f"pid {pid}".encode())
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - the other side must hear of everything
        os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(1)


def _exec(argv, output, env, pass_fd) -> None:
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        if pass_fd is not None:
            if pass_fd != 3:
                os.dup2(pass_fd, 3)
            os.set_inheritable(3, True)
        os.closerange(4 if pass_fd is not None else 3, 4096)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        os.chdir("/")
        os.umask(0o022)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(str(argv[0]), [str(part) for part in argv], env if env is not None else dict(os.environ))
    except OSError as error:
        print(f"cannot start {argv[0]}: {error}", file=sys.stderr, flush=True)
        os._exit(127)
