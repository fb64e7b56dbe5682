"""What loading and serving a model costs, as its cgroup is charged: a container's limit counts the page cache as well."""

import contextlib
import os
import re
import resource
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
        self._limit = "memory.max" if unified else "memory.limit_in_bytes"

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def limit(self, count: int):
        (self.path / self._limit).write_text(str(count))

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


def refusal(result) -> str:
    """The one error line of a program that said what is wrong and ended."""
    assert result.returncode == 2, (result.returncode, result.stderr)
    errors = [line for line in result.stderr.splitlines() if " error " in line]
    assert len(errors) == 1, result.stderr
    return errors[0]


def test_a_kv_cache_larger_than_the_machines_memory_is_refused_with_the_figures():
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    wanted = 2 * machine // 2**30 + 1
    path = quern_serve.model(quern_serve.GEMMA)
    said = refusal(quern_serve.run_to_end(path, "--port", "0", "--admin-port", "0", "--kv-memory", f"{wanted}GiB"))
    assert path in said and f"a KV cache of {wanted}.0 GiB does not fit" in said, said
    left = re.search(r"leave ([\d.]+) GiB", said)
    assert "236 MiB of weights" in said and left and 0 < float(left.group(1)) <= machine / 2**30, said


# Gemma's weights take 236 MiB.
@pytest.mark.parametrize(("limit", "options", "says"), [
    (150, [], r"a weight matrix needs [\d.]+ MiB, but [\d.]+ MiB are left of this process's memory limit: raise the limit"),
    (330, [], r"no memory is left for a KV cache of 512 tokens .* of 330 MiB \(cgroup limit\); raise the limit"),
    (600, ["--kv-memory", "512MiB"], r"a KV cache of 512 MiB does not fit: .* of 600 MiB \(cgroup limit\) leave \d+ MiB; give less"),
])
def test_under_a_limit_that_is_too_small_it_says_so_and_is_not_killed(cgroup, limit, options, says):
    cgroup.limit(limit * MIB)
    result = quern_serve.run_to_end(quern_serve.model(quern_serve.GEMMA), "--port", "0", "--admin-port", "0", *options,
                                    before_start=cgroup.enter)
    assert re.search(says, refusal(result)), result.stderr


# First the file cannot be mapped, then the weights cannot be had, then the KV cache that the machine would have room for.
@pytest.mark.parametrize("limit", [300, 600, 900])
def test_under_a_limit_of_address_space_it_says_so(limit):
    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (limit * MIB, limit * MIB))
    path = quern_serve.model(quern_serve.GEMMA)
    said = refusal(quern_serve.run_to_end(path, "--port", "0", "--admin-port", "0", "--threads", "2", before_start=limited))
    assert path in said and "ulimit -v" in said, said
