"""What clusters change on the machine outside their namespaces, put back by the last of them that ends.

Bind mounts need an empty directory to cover, and the kubelet writes a few kernel settings. Several
clusters share both: removing a directory would take a mount of another cluster with it, as the kernel
lets go of a mount point that is one in other mount namespaces only. So what was made or changed is
recorded once for the machine, below /run, and one lock keeps `up` and `down` of different clusters
from meeting here.
"""

import contextlib
import fcntl
import json
import os
from pathlib import Path

# Written by the kubelet for the whole machine.
_KERNEL_SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
                    "kernel/keys/root_maxbytes")
RECORDS = Path("/run/quern-clusters")


@contextlib.contextmanager
def _locked():
    RECORDS.mkdir(mode=0o700, exist_ok=True)
    with (RECORDS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(name: str, default):
    with contextlib.suppress(OSError, ValueError):
        return json.loads((RECORDS / name).read_text())
    return default


def mounted_anywhere(targets: list[str]) -> bool:
    """Whether any process of the machine sees something mounted at one of the paths."""
    seen = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # ended meanwhile
            namespace = os.readlink(process / "ns" / "mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            points = {line.split()[4] for line in (process / "mountinfo").read_text().splitlines()}
            if points & set(targets):
                return True
    return False


@contextlib.contextmanager
def prepared(targets: list[str]):
    """Makes the directories `targets`. The caller has mounted over them when the context ends."""
    with _locked():
        if not (RECORDS / "kernel-settings.json").exists():
            values = {name: Path("/proc/sys", name).read_text().strip() for name in _KERNEL_SETTINGS
                      if Path("/proc/sys", name).exists()}
            (RECORDS / "kernel-settings.json").write_text(json.dumps(values))
        made = _read("directories.json", [])
        for target in targets:
            for path in [*reversed(Path(target).parents), Path(target)]:
                if not path.exists():
                    path.mkdir()
                    made.append(str(path))
        (RECORDS / "directories.json").write_text(json.dumps(made))
        yield


def put_back(targets: list[str]) -> None:
    """Undoes what the clusters did, unless one of them still has something mounted at `targets`."""
    with _locked():
        if mounted_anywhere(targets):
            return
        for path in reversed(_read("directories.json", [])):
            with contextlib.suppress(OSError):  # somebody else uses it by now
                os.rmdir(path)
        for name, value in _read("kernel-settings.json", {}).items():
            if Path("/proc/sys", name).read_text().strip() != value:
                Path("/proc/sys", name).write_text(value)
        for name in ("directories.json", "kernel-settings.json"):
            (RECORDS / name).unlink(missing_ok=True)
