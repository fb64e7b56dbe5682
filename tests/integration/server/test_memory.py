"""What loading and serving a model costs, as its cgroup is charged: a container's limit counts the page cache as well."""

import contextlib
import os
import re
import uuid
from pathlib import Path

import pytest
import quern_serve

MIB = 2**20


class MemoryCgroup:
    """A memory cgroup of its own, v2 or v1. Needs root, as the local cluster does."""

    def __init__(self):
        unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        root = Path("/sys/fs/cgroup") if unified else Path("/sys/fs/cgroup/memory")
        own = next(line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()
                   if (line.startswith("0::") if unified else "memory" in line.split(":")[1].split(",")))
        # In v2 a group with processes cannot hand controllers down, so ours lies beside it, not in it.
        parent = root / own.strip("/")
        self.path = (parent.parent if unified and parent != root else parent) / f"quern-test-{uuid.uuid4().hex[:8]}"
        self.path.mkdir()
        self._peak = "memory.peak" if unified else "memory.max_usage_in_bytes"

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self) -> int:
        return int((self.path / self._peak).read_text())

    def remove(self):
        def removed():
            with contextlib.suppress(OSError):  # busy for a moment after its last process has gone
                self.path.rmdir()
            return not self.path.exists()
        quern_serve.wait_for(removed, f"{self.path} to be empty")


@pytest.fixture
def cgroup():
    group = MemoryCgroup()
    yield group
    group.remove()


def forget(path: str):
    """Drops the file from the page cache, so that whoever reads it next is charged for it."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# Room for the program, its buffers, the tokenizer (Gemma's has 262,144 tokens) and the KV blocks in use, in MiB: they took 35 and
# 49. What is read ahead of the file is let go with the parts of it that were taken.
@pytest.mark.parametrize(("name", "room"), [(quern_serve.SMOLLM2, 65), (quern_serve.GEMMA, 80)])
def test_one_copy_of_the_weights_is_all_that_the_cgroup_is_charged_for(cgroup, name, room):
    path = quern_serve.model(name)
    forget(path)
    with quern_serve.Server(path, "--threads", "2", "--kv-memory", "64MiB", before_start=cgroup.enter) as server:
        for prompt in ("Once upon a time", "def main():"):
            done = server.post("/v1/completions", {"model": server.name, "prompt": prompt, "max_tokens": 8})
            assert done.status_code == 200, done.text
        line = next(line for line in server.log if re.search(r"weights [\d.]+ MiB", line))
        weights = float(re.search(r"weights ([\d.]+) MiB", line).group(1)) * MIB
        peak = cgroup.peak()
    figures = f"{name}: weights {weights / MIB:.0f} MiB, peak of the cgroup {peak / MIB:.0f} MiB"
    print(figures)
    assert peak > weights, figures  # or something is not counted
    assert peak < weights + room * MIB, figures
