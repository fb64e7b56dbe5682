"""A step that hangs: /health/live and /health/ready say so while it does, and no longer once it goes on. The hang is real: the thread
of the engine is stopped as a debugger stops it, which leaves all others running."""

import contextlib
import ctypes
import os
import time
from pathlib import Path

import quern_serve
import requests

# ptrace(2). A thread that was seized is stopped alone.
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000  # waitpid(2): of threads too
_libc = ctypes.CDLL(None, use_errno=True)


def ptrace(request: int, thread: int):
    if _libc.ptrace(request, ctypes.c_long(thread), ctypes.c_void_p(), ctypes.c_void_p()) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace({request:#x}) of thread {thread}")


@contextlib.contextmanager
def stopped(thread: int):
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, WALL)
    try:
        yield
    finally:
        ptrace(PTRACE_DETACH, thread)


def stop(server, thread: int, hang: contextlib.ExitStack):
    """Where it holds no lock that the other threads need: not while it hands out a token, a small part of its time."""
    for _ in range(10):
        hang.enter_context(stopped(thread))
        with contextlib.suppress(requests.Timeout):
            requests.get(server.admin + "/metrics", timeout=5)
            return
        hang.close()
        time.sleep(0.1)  # that it gets away from there
    raise AssertionError("nothing answers while the engine's thread is stopped")


def cpu_ticks(pid: int) -> dict[int, int]:
    """Of each thread."""
    ticks = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        ticks[int(task.name)] = int(fields[11]) + int(fields[12])
    return ticks


def test_liveness_fails_while_a_step_hangs_and_returns_when_it_goes_on():
    # With one thread the engine's own computes, and no other takes as much of the processor.
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--threads", "1", "--kv-memory", "64MiB", "--stall-timeout", "4s") as server:
        def health():
            return {(path, admin): server.get(f"/health/{path}", admin=admin) for path in ("live", "ready") for admin in (False, True)}

        def stalled(path):
            return quern_serve.wait_for(lambda: (reply := server.get(f"/health/{path}", admin=True)).status_code == 503 and reply.json(), f"not {path}")

        before = cpu_ticks(server.process.pid)
        body = {"model": server.name, "prompt": "Once", "max_tokens": 700, "stream": True, "ignore_eos": True}
        with requests.post(server.url + "/v1/completions", json=body, stream=True, timeout=quern_serve.PATIENCE) as answer:
            lines = answer.iter_lines()
            for _ in range(200):  # of two lines for each token
                next(lines)
            ticks = cpu_ticks(server.process.pid)
            engine = max(ticks, key=lambda thread: ticks[thread] - before.get(thread, 0))
            assert all(reply.status_code == 200 for reply in health().values())
            with contextlib.ExitStack() as hang:
                stop(server, engine, hang)
                assert stalled("ready")["status"] == "stalled"
                said = stalled("live")
                assert said["status"] == "stalled" and "the limit is 4 s" in said["reason"], said
                assert {reply.status_code for reply in health().values()} == {503}
                made = server.metric("quern_generation_tokens_total")
            quern_serve.wait_for(lambda: all(reply.status_code == 200 for reply in health().values()), "health after the hang")
            assert b"data: [DONE]" in list(lines)
        assert server.metric("quern_generation_tokens_total") == 700 > made
        # Idle for longer than the limit is no stall.
        assert server.get("/health/live").status_code == 200
