"""Bringing the cluster up, repairing it, taking it down, and saying how it is."""

import contextlib
import datetime
import fcntl
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from .. import console, control_plane, golang, kube_api, oci
from ..processes import Namespaces, Registry, wait_until
from . import node, objects, parts
from .layout import NODE_ADDRESS, NODE_NAME, Layout, listen_on

_TOOLS = ("/usr/bin/containerd", "/usr/bin/prometheus", "/usr/sbin/runc", "/usr/lib/cni/ptp")
_COMMANDS = ("ip", "iptables", "nft", "socat", "conntrack", "openssl")


class Cluster:
    """One cluster, known by its state directory."""

    def __init__(self, root: Path | None = None):
        self.layout = Layout(root)
        self.registry = Registry(self.layout.run, self.layout.logs)
        # The parts that this `up` has started or found running, in that order: of several that have ended, the first
        # is named, for the later ones hang on it.
        self._ensured: list[str] = []

    # ---- what is there -------------------------------------------------------------------------

    def namespaces(self) -> Namespaces | None:
        """Where the cluster lives; None while it is down."""
        pid = self.registry.pid(node.HOLDER)
        return Namespaces(pid) if pid else None

    def require_up(self) -> Namespaces:
        namespaces = self.namespaces()
        if namespaces is None:
            raise console.Failure("the cluster is down; start it with: hack/cluster up")
        return namespaces

    @contextlib.contextmanager
    def locked(self):
        """Only one `up` or `down` at a time. The lock is beside the state, which --wipe removes."""
        path = self.layout.root.with_name(self.layout.root.name + ".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                console.say("  another hack/cluster is at work; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # ---- up ------------------------------------------------------------------------------------

    def up(self) -> None:
        """Starts what does not run, restarts what runs with other settings; a no-op when all is well."""
        check_tools()
        with self.locked():
            start = time.monotonic()
            self.layout.make()
            before = self._pids()
            self._ensured.clear()
            if self.namespaces() is None:
                self._start_anew()
            self._ensured.append(node.HOLDER)
            self._start_storage()
            self._start_api()
            self._start_rest()
            changed = self._pids() != before
        took = f"{time.monotonic() - start:.1f} s"
        console.say(f"cluster: {'up' if changed else 'is up already'} ({took})")

    def _pids(self) -> dict:
        return {name: self.registry.pid(name) for name in self.registry.names()}

    def _start_anew(self) -> None:
        # What a killed holder may have left: relays outside, control groups, mount points.
        if self.registry.names():
            node.stop_holder(self.layout, self.registry)
        with console.stage("make the node's network and mounts"):
            node.start_holder(self.layout, self.registry)

    def _ensure(self, part: parts.Part) -> bool:
        """True if it had to be started."""
        self._ensured.append(part.name)
        if self.registry.is_current(part.name, part.fingerprint):
            return False
        if self.registry.pid(part.name):
            self.registry.stop([part.name], 10)
        self.registry.start(part.name, part.argv, fingerprint=part.fingerprint, namespaces=self.require_up())
        return True

    def _start_storage(self) -> None:
        started = [part.name for part in parts.storage(self.layout) if self._ensure(part)]
        if "containerd" not in started:
            return
        socket_path = self.layout.containerd_socket
        with console.stage("start etcd and containerd", quiet_below=2):
            self._wait("containerd", lambda: _accepts(socket_path), 30)
            self.load([self.layout.root / "pause-image.tar"], quiet=True)

    def _start_api(self) -> None:
        started = self._ensure(parts.apiserver(self.layout))
        for name, target in parts.RELAYS.items():
            self._ensure_relay(name, target)
        control_plane.admin_kubeconfig(self.layout.kubeconfig, self.layout.authority(), self.layout.port("api"))
        client = self.layout.client(timeout=5)
        if started:
            with console.stage("start the API server"):
                self._wait("kube-apiserver", client.is_ready, 120)
        elif not client.is_ready():
            with console.stage("wait for the API server"):
                self._wait("kube-apiserver", client.is_ready, 60)

    def _ensure_relay(self, name: str, target: str) -> None:
        part = parts.relay(name, target)
        self._ensured.append(part.name)
        if self.registry.is_current(part.name, part.fingerprint):
            return
        self.registry.stop([part.name], 5)
        with self.layout.listen(name) as listener:
            self.registry.start(part.name, part.argv, fingerprint=part.fingerprint, namespaces=self.require_up(),
                                pass_fd=listener.fileno())

    def _start_rest(self) -> None:
        client = self.layout.client()
        for part in parts.controllers(self.layout):
            self._ensure(part)
        wanted = parts.services(self.layout)
        if not all(self.registry.is_current(part.name, part.fingerprint) for part in wanted):
            objects.apply(client)
        for part in wanted:
            self._ensure(part)
        with console.stage("wait for the node, DNS and Prometheus", quiet_below=1):
            kubelet_start = self.registry.started_at("kubelet")
            self._wait("kubelet", lambda: _node_is_ready(client, kubelet_start), 120)
            self._wait("kube-controller-manager", lambda: _exists(
                client, "/api/v1/namespaces/default/serviceaccounts/default"), 60)
            self._wait("coredns", lambda: self._answers("127.0.0.1", 18181, "/ready"), 60)
            self._wait("prometheus", lambda: self._answers(NODE_ADDRESS, 9090, "/-/ready"), 60)
            self._wait("kube-proxy", lambda: self._answers("127.0.0.1", 10256, "/healthz"), 60)
            self._wait("kwok", lambda: self._answers("127.0.0.1", 10247, "/healthz"), 60)

    def _answers(self, host: str, port: int, path: str) -> bool:
        return node.run_inside(self.require_up(), lambda: _http_ok(host, port, path))

    def _wait(self, name: str, condition, seconds: float) -> None:
        """Waits for a part, and says at once, with the end of its log, when it or another part has died instead."""
        def ended() -> str | None:
            return next((part for part in self._ensured if self.registry.pid(part) is None), None)

        done = wait_until(lambda: ended() or condition(), seconds, interval=0.1)
        dead = ended()
        if done and not dead:
            return
        part, how = (dead, "has ended") if dead else (name, f"did not become ready in {seconds:.0f} s")
        raise console.Failure(f"{part} {how}. The end of its log ({self.layout.logs}/{part}.log):\n"
                              f"{self.registry.log_tail(part)}")

    # ---- images --------------------------------------------------------------------------------

    def _ctr(self, *arguments) -> subprocess.CompletedProcess:
        return subprocess.run(["ctr", f"--address={self.layout.containerd_socket}", "--namespace=k8s.io",
                               *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)

    def _holds(self, archive: Path) -> bool:
        """True if the node has every image of the archive already, under the same name and digest."""
        wanted = oci.names(archive)
        if not wanted:
            return False
        lines = [line.split() for line in self._ctr("images", "ls").stdout.splitlines()]
        present = {line[0]: line[2] for line in lines if len(line) > 2}
        return all(present.get(name) == digest for name, digest in wanted.items())

    def load(self, archives: list[Path], quiet: bool = False) -> None:
        """Puts image archives (OCI or docker-save) into the node's image store, unless they are there."""
        self.require_up()
        for archive in archives:
            if not archive.exists():
                raise console.Failure(f"{archive} does not exist; make images with: hack/images")
            if self._holds(archive):
                if not quiet:
                    console.say(f"  {archive.name} is on the node already")
                continue
            with console.stage(f"load {archive.name}", quiet_below=1e9 if quiet else 0):
                result = self._ctr("images", "import", "--digests=false", archive)
                if result.returncode != 0:
                    raise console.Failure(f"containerd refused {archive}: {result.stderr.strip()}")
            if not quiet:
                console.say("    " + result.stdout.strip().replace("\n", "\n    "))

    # ---- down ----------------------------------------------------------------------------------

    def down(self, wipe: bool = False) -> None:
        """Stops everything and puts the machine back; data stays unless `wipe`."""
        if wipe:
            self.layout.require_ours()
        with self.locked():
            if self.registry.names():
                with console.stage("stop the cluster"):
                    self._stop()
            else:
                console.say("cluster: is down already")
            if wipe and self.layout.root.exists():
                with console.stage("remove its data"):
                    shutil.rmtree(self.layout.root)

    def _stop(self) -> None:
        relays = [name for name in self.registry.names() if name.startswith(("relay-", "forward-"))]
        self.registry.stop([*relays, *parts.STOP_FIRST], 10)
        if self.registry.pid("containerd"):
            self._stop_containers()
        for name in parts.STOP_LAST:
            self.registry.stop([name], 15)
        node.stop_holder(self.layout, self.registry)

    def _stop_containers(self) -> None:
        """SIGTERM to every container, and up to 5 s for them to end; the rest ends with the holder."""
        def running() -> list[str]:
            lines = [line.split() for line in self._ctr("tasks", "ls").stdout.splitlines()[1:]]
            return [line[0] for line in lines if line[2:3] == ["RUNNING"]]

        for task in running():
            self._ctr("tasks", "kill", "--signal=SIGTERM", task)
        wait_until(lambda: not running(), 5, interval=0.3)

    # ---- ways in -------------------------------------------------------------------------------

    def forward(self, target: str, port: int) -> tuple[str, int]:
        """Starts a relay from loopback `port` (0: any) to HOST:PORT inside. Returns (record's name, port)."""
        namespaces = self.require_up()
        try:
            listener = listen_on(port)
        except OSError as error:
            raise console.Failure(f"port {port} of 127.0.0.1 cannot be used: {error.strerror}. "
                                  "Give another one, or 0 for any.") from error
        with listener:
            port = listener.getsockname()[1]
            name = f"forward-{port}"
            self.registry.start(name, [golang.program("tools", "relay"), target, f"{NODE_ADDRESS}:53"],
                                namespaces=namespaces, pass_fd=listener.fileno(), extra={"target": target})
        return name, port


def check_tools() -> None:
    if os.geteuid() != 0:
        raise console.Failure("the cluster needs root: it makes network namespaces and runs containers")
    missing = [tool for tool in _TOOLS if not os.path.exists(tool)]
    missing += [tool for tool in _COMMANDS if shutil.which(tool) is None]
    unbuilt = [part for part in ("kubernetes", "tools", "coredns", "kwok") if not golang.is_built(part)]
    if missing or unbuilt:
        raise console.Failure(f"not installed or built yet: {', '.join([*missing, *unbuilt])}. "
                              "Run: hack/setup --cluster")


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
            return True
        except OSError:
            return False


def _http_ok(host: str, port: int, path: str) -> bool:
    with socket.create_connection((host, port), timeout=2) as probe:
        probe.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        return probe.recv(64).split(b" ")[1] == b"200"


def _exists(client: kube_api.Client, path: str) -> bool:
    try:
        client.get(path)
        return True
    except (kube_api.ApiError, OSError):
        return False


def _node_is_ready(client: kube_api.Client, kubelet_start: float) -> bool:
    """Ready, and said so by this kubelet: the API keeps what the last one said for a while after its end."""
    try:
        conditions = client.get(f"/api/v1/nodes/{NODE_NAME}")["status"].get("conditions", [])
    except (kube_api.ApiError, OSError):
        return False
    return any(condition["type"] == "Ready" and condition["status"] == "True"
               and datetime.datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp() >= int(kubelet_start)
               for condition in conditions)
