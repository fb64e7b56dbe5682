"""The namespaces that the whole cluster lives in, and what must be put right on the machine afterwards.

One process, the holder, is the first of new mount, network and pid namespaces. Every part of the
cluster and every container is started inside them, so when the holder ends, the kernel ends all of
it and takes the mounts and the network along. Outside remain files under the state directory,
control groups (removed by name) and a few kernel settings that the kubelet writes (put back).
"""

import os
import signal
import sys
from pathlib import Path

from .. import console, golang, paths
from ..control_plane import SERVICE_RANGE
from ..processes import Namespaces, Registry, wait_until
from . import machine
from .layout import MODEL_ROOT, NODE_ADDRESS, Layout

HOLDER = "holder"
_CGROUPS = Path("/sys/fs/cgroup")
_SETUP = """
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
# The kubelet's statistics look for containerd here, whatever address it is given.
mkdir -p /run/containerd
ln -s "$1" /run/containerd/containerd.sock
shift
while [ $# -gt 2 ]; do mount --bind "$1" "$2"; shift 2; done
mount -o remount,bind,ro @MODEL_ROOT@
mount --make-rshared /
ip link set lo up
ip link add node0 type bridge
ip address add "$1/24" dev node0
ip link set node0 up
# Lets the node itself send to Services: a route must exist before kube-proxy rewrites the address.
# Everything else outside is unreachable, and is said so at once.
ip route add @SERVICE_RANGE@ dev node0
echo 1 > /proc/sys/net/ipv4/ip_forward
touch /run/quern-ready
exec "$2"
"""


def _binds(layout: Layout) -> list[tuple[Path, str]]:
    """(what lies in the state directory, where it is seen inside). Programs have these paths built in."""
    return [(layout.root / "kubelet", "/var/lib/kubelet"), (layout.root / "cni", "/var/lib/cni"),
            (layout.root / "pod-logs", "/var/log/pods"), (layout.root / "container-logs", "/var/log/containers"),
            (paths.models_dir(), MODEL_ROOT)]


def _mount_points(layout: Layout) -> list[str]:
    return [target for _, target in _binds(layout)]


def start_holder(layout: Layout, registry: Registry) -> Namespaces:
    """Makes the namespaces and returns when mounts and network are in place."""
    _make_cgroups(layout)
    arguments = [part for bind in _binds(layout) for part in map(str, bind)]
    script = _SETUP.replace("@MODEL_ROOT@", MODEL_ROOT).replace("@SERVICE_RANGE@", SERVICE_RANGE)
    pause = golang.program("tools", "pause")
    with machine.prepared(_mount_points(layout)):
        pid = registry.start(HOLDER, ["/bin/sh", "-euc", script, "holder", layout.containerd_socket,
                                      *arguments, NODE_ADDRESS, pause], isolate=True)
        ready = Path(f"/proc/{pid}/root/run/quern-ready")
        if not wait_until(lambda: ready.exists() or registry.pid(HOLDER) is None, 20) or not ready.exists():
            raise console.Failure("the cluster's namespaces could not be set up:\n" + registry.log_tail(HOLDER))
    return Namespaces(pid)


def _hierarchies() -> list[Path]:
    """Every control-group tree: one per controller on version 1, a single one on version 2."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return sorted(path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())


def _make_cgroups(layout: Layout) -> None:
    for hierarchy in _hierarchies():
        group = hierarchy / layout.cgroup
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # version 1: a new group has none
            file = group / name
            if file.exists() and (hierarchy / name).exists() and not file.read_text().strip():
                file.write_text((hierarchy / name).read_text())
    if _hierarchies() == [_CGROUPS]:
        wanted = (_CGROUPS / "cgroup.controllers").read_text().split()
        for directory in (_CGROUPS, _CGROUPS / layout.cgroup):
            (directory / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))


def _remove_cgroups(layout: Layout) -> None:
    def remove() -> bool:
        left = False
        for hierarchy in _hierarchies():
            top = hierarchy / layout.cgroup
            for directory, _, _ in sorted(os.walk(top), key=lambda step: -len(step[0])):
                try:
                    os.rmdir(directory)
                except OSError:
                    left = True
        return not left

    if not wait_until(remove, 10, interval=0.2):
        console.say(f"  some control groups named {layout.cgroup} could not be removed: processes are still in them")


def stop_holder(layout: Layout, registry: Registry) -> None:
    """Ends whatever is left inside, and puts the machine back as it was."""
    registry.send(HOLDER, signal.SIGKILL)
    if not wait_until(lambda: registry.pid(HOLDER) is None, 15):
        raise console.Failure(f"the cluster's first process (pid {registry.pid(HOLDER)}) did not end")
    registry.stop(registry.names(), 0)
    _remove_cgroups(layout)
    machine.put_back(_mount_points(layout))


def run_inside(namespaces: Namespaces, function, kinds=("net",)) -> bool:
    """Runs `function` in a child that is inside the cluster's network. True if it returned something true."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            namespaces.enter(kinds)
            code = 0 if function() else 1
        except BaseException:  # noqa: BLE001 - the exit code is the answer
            pass
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
