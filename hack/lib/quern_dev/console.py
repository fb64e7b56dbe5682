"""What a person sees: stages with their time, a heartbeat for what takes long, errors that teach."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

_TTY = sys.stdout.isatty()
_HEARTBEAT_SECONDS = 2.0 if _TTY else 10.0
_SLOW_HEARTBEAT_SECONDS = 2.0 if _TTY else 30.0  # in a log, after the first minute
_PATIENCE_SECONDS = 60.0  # for a command that was asked to stop: apt-get ends the package that it has in work
_lock = threading.Lock()


class Failure(Exception):
    """A failure that reaches a person: what was wrong, where, and what would be right."""


def say(text: str) -> None:
    with _lock:
        if _TTY:
            sys.stdout.write("\r\033[K")
        print(text, flush=True)


def note(text: str) -> None:
    """For a person, where stdout carries the answer to a program."""
    with _lock:
        print(text, file=sys.stderr, flush=True)


def _tick(text: str) -> None:
    with _lock:
        if _TTY:
            sys.stdout.write("\r\033[K" + text[: _width() - 1])
            sys.stdout.flush()
        else:
            print(text, flush=True)


def _width() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 100


@contextlib.contextmanager
def stage(name: str, detail=None, quiet_below: float = 0.0):
    """Times a stage. While it runs longer than a heartbeat, says so; `detail()` adds what it is at.

    A stage that ends sooner than `quiet_below` seconds prints nothing.
    """
    start = time.monotonic()
    done = threading.Event()

    def beat():
        while not done.wait(_HEARTBEAT_SECONDS if time.monotonic() - start < 60 else _SLOW_HEARTBEAT_SECONDS):
            extra = detail() if detail else ""
            _tick(f"  … {name}: {time.monotonic() - start:.0f} s{'  ' + extra if extra else ''}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    ok = False
    try:
        yield
        ok = True
    finally:
        done.set()
        thread.join()
        elapsed = time.monotonic() - start
        if not ok or elapsed >= quiet_below:
            say(f"  {'✓' if ok else '✗'} {name} ({elapsed:.1f} s)")


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4000))
            lines = file.read().decode(errors="replace").replace("\r", "\n").strip().splitlines()
        return lines[-1].strip()[:100] if lines else ""
    except OSError:
        return ""


def run_patiently(command, **options) -> int:
    """Runs a command; its exit code. Ctrl-C or SIGTERM to us reaches it as SIGTERM, and it gets time to put things back."""
    with subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, **options) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=_PATIENCE_SECONDS)
            child.kill()
            raise


def run_logged(name: str, command, log: Path, *, env=None, cwd=None, attempts: int = 1, quiet_below: float = 0.0):
    """Runs a command with its output in `log`, under a stage that shows the log's last line.

    Tries up to `attempts` times (for downloads), waiting 3 s, 6 s, … between them.
    Raises Failure with the end of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with stage(name, detail=lambda: _last_line(log), quiet_below=quiet_below):
        for attempt in range(1, attempts + 1):
            with log.open("wb") as out:
                code = run_patiently(command, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=cwd)
            if code == 0:
                return
            if attempt < attempts:
                say(f"    {name}: exit code {code} ({_last_line(log)}); trying again ({attempt + 1} of {attempts})")
                time.sleep(3 * attempt)
    tail = "\n".join("    " + line for line in log.read_text(errors="replace").splitlines()[-25:])
    raise Failure(f"{name} failed with exit code {code}.\n  Command: {' '.join(map(str, command))}\n"
                  f"  The end of its log ({log}):\n{tail}")


def main_guard(main) -> None:
    """Runs main(); a Failure becomes one plain message and exit code 1, Ctrl-C exit code 130.

    SIGTERM and a lost terminal are taken like Ctrl-C, so that what was begun is put back.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # under nohup SIGHUP is ignored, and stays so
            signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except Failure as failure:
        say(f"error: {failure}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
