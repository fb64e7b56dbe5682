"""The cluster's addresses and files. Nothing here does anything but name things and write settings."""

import hashlib
import json
import os
import socket
from pathlib import Path

from .. import console, kube_api, paths, pki
from ..control_plane import Endpoints

NODE_NAME = "quern-node"
# All of these exist only inside the cluster's network namespace, which has no way out.
NODE_ADDRESS = "10.243.0.1"
POD_RANGE = "10.244.0.0/16"
SIMULATED_POD_RANGE = "10.245.0.1/16"
DNS_ADDRESS = "10.96.0.10"
PROMETHEUS_ADDRESS = "10.96.0.11"
DOMAIN = "cluster.local"
API_PORT = 6443
MODEL_ROOT = "/var/lib/quern/models"  # on the node: what an administrator allows endpoints to serve
# Host ports that are taken when they are free; the one in use is kept in ports.json.
_PREFERRED_PORTS = {"api": 16443, "prometheus": 19090}


class Layout:
    """The directories under the cluster's state directory."""

    def __init__(self, root: Path | None = None):
        self.root = (root or paths.state_dir()).resolve()
        self.run = self.root / "run"  # pids and sockets
        self.logs = self.root / "logs"
        self.etc = self.root / "etc"  # generated settings
        self.kubeconfig = self.root / "kubeconfig"
        self.containerd_socket = self.run / "containerd.sock"
        # Unique per state directory, so that two clusters on a machine do not share control groups.
        self.cgroup = "quern-" + hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    def make(self) -> None:
        """Makes the directories. Failure if something else lies there, or the sockets' paths would be too long."""
        longest = f"{self.containerd_socket}.ttrpc"
        if len(longest.encode()) > 107:
            raise console.Failure(f"the state directory's path is too long for the sockets in it: {longest} has "
                                  f"{len(longest.encode())} bytes, 107 is the limit. Set QUERN_STATE to a shorter one.")
        self.require_ours()
        self.root.mkdir(parents=True, exist_ok=True)
        self._marker.touch()
        for path in (self.run, self.logs, self.etc, self.etc / "cni",
                     *(self.root / name for name in ("containerd", "kubelet", "cni", "pod-logs", "container-logs",
                                                     "prometheus", "kwok"))):
            path.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        paths.models_dir().mkdir(parents=True, exist_ok=True)

    @property
    def _marker(self) -> Path:
        return self.root / ".quern-cluster"

    def require_ours(self) -> None:
        """Failure if the directory holds something, but not a cluster: it would be closed to others, and wiped."""
        if self.root.exists() and not self._marker.exists() and any(self.root.iterdir()):
            raise console.Failure(f"{self.root} holds other files than a cluster's. Set QUERN_STATE to a new or empty directory.")

    def authority(self) -> pki.Authority:
        return pki.Authority(self.root / "pki")

    def endpoints(self) -> Endpoints:
        return Endpoints(NODE_ADDRESS, API_PORT, 2379, 2380, self.authority(), self.root / "etcd")

    def client(self, timeout: float = 10.0) -> kube_api.Client:
        return kube_api.Client(self.kubeconfig, timeout)

    def port(self, name: str) -> int | None:
        """The host's loopback port of `api` or `prometheus`; None before the first `up`."""
        try:
            return json.loads((self.root / "ports.json").read_text()).get(name)
        except (OSError, ValueError):
            return None

    def listen(self, name: str) -> socket.socket:
        """A listening loopback socket on the port used before, else the preferred one, else any."""
        for port in (self.port(name), _PREFERRED_PORTS[name], 0):
            if port is None:
                continue
            try:
                listener = listen_on(port)
            except OSError:
                continue
            self._keep_port(name, listener.getsockname()[1])
            return listener
        raise OSError("no loopback port is free")

    def _keep_port(self, name: str, port: int) -> None:
        path = self.root / "ports.json"
        ports = json.loads(path.read_text()) if path.exists() else {}
        if ports.get(name) != port:
            ports[name] = port
            write(path, json.dumps(ports) + "\n")


def listen_on(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1:port (0: any free one). OSError if the port is taken."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    return listener


def write(path: Path, text: str) -> Path:
    """Replaces a file atomically, and only if its content changes."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.touch(mode=0o600)
        temporary.write_text(text)
        os.replace(temporary, path)
    return path
