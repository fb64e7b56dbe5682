"""The cluster's processes: their command lines, in the order in which they are started."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .. import control_plane, golang, oci
from ..processes import fingerprint
from . import settings
from .layout import API_PORT, NODE_ADDRESS, NODE_NAME, SIMULATED_POD_RANGE, Layout

_LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Part:
    name: str
    argv: list
    files: list = field(default_factory=list)  # settings: a change means a restart

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.argv, self.files)


def pause_image(layout: Layout) -> oci.Image:
    program = golang.program("tools", "pause")
    return oci.write(layout.root / "pause-image.tar", "localhost/quern/pause",
                     [[oci.Entry("pause", 0o755, source=program)]],
                     {"User": "65532:65532", "Entrypoint": ["/pause"]})


def storage(layout: Layout) -> list[Part]:
    """etcd and containerd, which need nobody."""
    image = pause_image(layout)
    config = settings.containerd(layout, image.reference)
    network = settings.cni(layout)
    return [Part("etcd", control_plane.etcd_command(layout.endpoints())),
            Part("containerd", ["/usr/bin/containerd", f"--config={config}", "--log-level=warn"], [config, network])]


def apiserver(layout: Layout) -> Part:
    return Part("kube-apiserver", control_plane.apiserver_command(layout.endpoints(), bind="0.0.0.0"))


def _kube(name: str) -> Path:
    return golang.program("kubernetes", name)


def controllers(layout: Layout) -> list[Part]:
    """Controller manager, scheduler and the node's agents, which need the API server."""
    authority = layout.authority()
    _, signing_key = authority.signing_key("service-accounts")
    manager = settings.part_kubeconfig(layout, "controller-manager", "system:kube-controller-manager")
    scheduler = settings.part_kubeconfig(layout, "scheduler", "system:kube-scheduler")
    kubelet = settings.part_kubeconfig(layout, "kubelet", f"system:node:{NODE_NAME}", groups=["system:nodes"])
    kubelet_config, proxy_config = settings.kubelet(layout), settings.kube_proxy(layout)
    return [
        Part("kube-controller-manager", [
            _kube("kube-controller-manager"), f"--kubeconfig={manager}", f"--authentication-kubeconfig={manager}",
            f"--authorization-kubeconfig={manager}", f"--bind-address={_LOCAL}", "--leader-elect=false",
            "--use-service-account-credentials=true", f"--service-account-private-key-file={signing_key}",
            f"--root-ca-file={authority.ca_cert}", f"--cluster-signing-cert-file={authority.ca_cert}",
            f"--cluster-signing-key-file={authority.ca_key}", "--allocate-node-cidrs=false",
            f"--requestheader-client-ca-file={authority.ca_cert}"], [manager]),
        Part("kube-scheduler", [
            _kube("kube-scheduler"), f"--kubeconfig={scheduler}", f"--authentication-kubeconfig={scheduler}",
            f"--authorization-kubeconfig={scheduler}", f"--bind-address={_LOCAL}", "--leader-elect=false"],
            [scheduler]),
        Part("kubelet", [
            _kube("kubelet"), f"--config={kubelet_config}", f"--kubeconfig={kubelet}",
            f"--hostname-override={NODE_NAME}", f"--node-ip={NODE_ADDRESS}"], [kubelet_config, kubelet]),
        Part("kube-proxy", [_kube("kube-proxy"), f"--config={proxy_config}"], [proxy_config]),
    ]


def _stages(layout: Layout) -> Path:
    text = subprocess.run([golang.program("kwok", "kwok-stages")], capture_output=True, text=True, check=True).stdout
    return settings.write(layout.etc / "kwok-stages.yaml", text)


def services(layout: Layout) -> list[Part]:
    """DNS, simulated nodes and Prometheus, which need their roles in the API."""
    corefile, stages, prometheus = settings.coredns(layout), _stages(layout), settings.prometheus(layout)
    kwok = settings.part_kubeconfig(layout, "kwok", "quern:kwok")
    authority = layout.authority()
    cert, key = authority.issue("prometheus", "quern:prometheus")
    return [
        Part("coredns", [golang.program("coredns", "coredns"), f"-conf={corefile}"], [corefile]),
        Part("kwok", [
            golang.program("kwok", "kwok"), f"--kubeconfig={kwok}", f"--config={stages}",
            "--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            f"--cidr={SIMULATED_POD_RANGE}", f"--node-ip={NODE_ADDRESS}", "--node-lease-duration-seconds=40",
            f"--server-address={_LOCAL}:10247"], [kwok, stages]),
        Part("discovery", [
            golang.program("tools", "discovery"), f"-server=https://{_LOCAL}:{API_PORT}", f"-ca={authority.ca_cert}",
            f"-cert={cert}", f"-key={key}", f"-node={NODE_NAME}", f"-output={settings.targets_file(layout)}"]),
        Part("prometheus", [
            "/usr/bin/prometheus", f"--config.file={prometheus}", f"--storage.tsdb.path={layout.root}/prometheus",
            "--storage.tsdb.retention.time=2d", "--storage.tsdb.retention.size=1GB",
            f"--web.listen-address={NODE_ADDRESS}:9090", "--log.level=warn"], [prometheus]),
    ]


def relay(name: str, target: str) -> Part:
    """Carries a loopback port of the machine to an address inside the cluster."""
    return Part(f"relay-{name}", [golang.program("tools", "relay"), target])


RELAYS = {"api": f"{_LOCAL}:{API_PORT}", "prometheus": f"{NODE_ADDRESS}:9090"}
# Stopped in this order: first those that act on the cluster, last those that keep its data.
STOP_FIRST = ("kubelet", "kwok", "prometheus", "discovery", "kube-scheduler", "kube-controller-manager", "kube-proxy",
              "coredns")
STOP_LAST = ("kube-apiserver", "containerd", "etcd")
