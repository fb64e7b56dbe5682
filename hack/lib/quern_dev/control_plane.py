"""etcd and kube-apiserver: their command lines, and a private pair of them for integration tests.

    with ControlPlane() as plane:
        plane.kubeconfig   # of a cluster administrator
        plane.client       # kube_api.Client

Everything listens on 127.0.0.1 with free ports; etcd and the API server use TLS with a CA of their
own; RBAC is on. Nothing else runs: no controllers, no scheduler, no nodes. `hack/cluster api` is the
same from a shell or another language.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import console, golang, kube_api, pki

SERVICE_RANGE = "10.96.0.0/16"
FIRST_SERVICE_ADDRESS = "10.96.0.1"
ISSUER = "https://kubernetes.default.svc.cluster.local"
_STARTUP_SECONDS = 90


@dataclass(frozen=True)
class Endpoints:
    """Where the two listen, and where their data and certificates lie."""

    address: str  # the API server's, also in its certificate
    api_port: int
    etcd_port: int
    peer_port: int
    authority: pki.Authority
    etcd_data: Path


def etcd_command(where: Endpoints, durable: bool = True) -> list:
    """etcd, reached over TLS by holders of a certificate of this CA only."""
    cert, key = where.authority.issue("etcd", "etcd", addresses=["127.0.0.1"])
    client, peer = f"https://127.0.0.1:{where.etcd_port}", f"https://127.0.0.1:{where.peer_port}"
    command = [golang.program("kubernetes", "etcd"), "--name=local", f"--data-dir={where.etcd_data}",
               f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
               f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
               f"--initial-cluster=local={peer}", "--auto-compaction-retention=1h",
               "--quota-backend-bytes=1073741824", "--log-level=warn"]
    for prefix in ("", "peer-"):
        command += [f"--{prefix}cert-file={cert}", f"--{prefix}key-file={key}",
                    f"--{prefix}trusted-ca-file={where.authority.ca_cert}", f"--{prefix}client-cert-auth=true"]
    if not durable:
        command.append("--unsafe-no-fsync")  # a test's data need not survive a power cut
    return command


def apiserver_command(where: Endpoints, bind: str, extra=()) -> list:
    """kube-apiserver with TLS, RBAC, the default admission plugins and signed service-account tokens."""
    ca = where.authority
    serving, serving_key = ca.issue(
        "apiserver", "kube-apiserver", addresses=["127.0.0.1", where.address, FIRST_SERVICE_ADDRESS],
        names=["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
               "kubernetes.default.svc.cluster.local"])
    client, client_key = ca.issue("apiserver-client", "kube-apiserver-client", groups=["system:masters"])
    proxy, proxy_key = ca.issue("front-proxy-client", "front-proxy-client")
    public, private = ca.signing_key("service-accounts")
    return [
        golang.program("kubernetes", "kube-apiserver"),
        f"--advertise-address={where.address}", f"--bind-address={bind}", f"--secure-port={where.api_port}",
        f"--tls-cert-file={serving}", f"--tls-private-key-file={serving_key}", f"--client-ca-file={ca.ca_cert}",
        f"--etcd-servers=https://127.0.0.1:{where.etcd_port}", f"--etcd-cafile={ca.ca_cert}",
        f"--etcd-certfile={client}", f"--etcd-keyfile={client_key}",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        f"--service-account-issuer={ISSUER}", f"--service-account-key-file={public}",
        f"--service-account-signing-key-file={private}", f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--kubelet-certificate-authority={ca.ca_cert}", f"--kubelet-client-certificate={client}",
        f"--kubelet-client-key={client_key}", "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={ca.ca_cert}", "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User", f"--proxy-client-cert-file={proxy}",
        f"--proxy-client-key-file={proxy_key}", *extra]


def admin_kubeconfig(path: Path, authority: pki.Authority, port: int, host: str = "127.0.0.1") -> None:
    cert, key = authority.issue("admin", "quern-admin", groups=["system:masters"])
    pki.write_kubeconfig(path, f"https://{host}:{port}", authority.ca_cert, cert, key)


def _die_with_parent() -> None:
    """A child ends when the test that started it does, however that ended (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class ControlPlane:
    """A private etcd and kube-apiserver. Use as a context manager; one per test session is enough.

    With `directory`, certificates and logs lie there and stay; otherwise in a temporary directory that
    is removed. etcd's data always starts empty.
    """

    def __init__(self, directory: Path | None = None, extra_apiserver_arguments=()):
        self._own = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="quern-api-"))
        self._extra = tuple(extra_apiserver_arguments)
        self._children: list[tuple[str, subprocess.Popen]] = []
        self.kubeconfig = self.directory / "kubeconfig"
        self.client: kube_api.Client | None = None

    def __enter__(self) -> "ControlPlane":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Starts both and returns when the API answers. Tries other ports if one was taken meanwhile."""
        for attempt in range(3):
            if self._try_start():
                return
            self._end_children()
        raise console.Failure(f"the private API server did not become ready in {_STARTUP_SECONDS} s; its logs are in "
                              f"{self.directory} and end with:\n{self._log_tails()}")

    def _try_start(self) -> bool:
        data = self.directory / "etcd-data"
        shutil.rmtree(data, ignore_errors=True)
        authority = pki.Authority(self.directory / "pki")
        where = Endpoints("127.0.0.1", *kube_api.free_ports(3), authority, data)
        admin_kubeconfig(self.kubeconfig, authority, where.api_port)
        self.client = kube_api.Client(self.kubeconfig)
        self._spawn("etcd", etcd_command(where, durable=False))
        # The node's address may not be a loopback one, so no endpoints are written for the Service "kubernetes".
        self._spawn("kube-apiserver", apiserver_command(
            where, bind="127.0.0.1", extra=["--endpoint-reconciler-type=none", *self._extra]))
        deadline = time.monotonic() + _STARTUP_SECONDS
        while time.monotonic() < deadline:
            if any(child.poll() is not None for _, child in self._children):
                return False
            if self.client.is_ready():
                return True
            time.sleep(0.1)
        return False

    def _spawn(self, name: str, command: list) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            child = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=subprocess.STDOUT, preexec_fn=_die_with_parent, cwd=self.directory)
        self._children.append((name, child))

    def _log_tails(self) -> str:
        tails = []
        for name in ("etcd", "kube-apiserver"):
            with contextlib.suppress(OSError):
                lines = (self.directory / f"{name}.log").read_text(errors="replace").splitlines()[-8:]
                tails += [f"    {name}: {line[:300]}" for line in lines]
        return "\n".join(tails)

    def _end_children(self) -> None:
        # The API server first: it complains at length about an etcd that is gone.
        for _, child in reversed(self._children):
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()

    def stop(self) -> None:
        self._end_children()
        if self._own:
            shutil.rmtree(self.directory, ignore_errors=True)


def run_in_foreground(directory: Path) -> int:
    """Runs a private control plane until SIGTERM, SIGINT or the end of standard input.

    Prints one line, KUBECONFIG=<path>, once it answers.
    """
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: (stopping.append(True), os.close(0)) if not stopping else None)
    directory.mkdir(parents=True, exist_ok=True)
    with ControlPlane(directory) as plane:
        print(f"KUBECONFIG={plane.kubeconfig}", flush=True)
        with contextlib.suppress(OSError):
            while not stopping and os.read(0, 4096):
                pass
    return 0
