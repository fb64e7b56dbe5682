"""The settings files of the cluster's parts. JSON wherever the part reads YAML."""

import json
import shutil
import subprocess
from pathlib import Path

from .. import pki
from .layout import (API_PORT, DNS_ADDRESS, DOMAIN, NODE_ADDRESS, NODE_NAME, POD_RANGE, Layout, write)


def _json(path: Path, value) -> Path:
    return write(path, json.dumps(value, indent=1) + "\n")


def part_kubeconfig(layout: Layout, name: str, user: str, groups=()) -> Path:
    """A kubeconfig for a part that runs inside the cluster's network."""
    authority = layout.authority()
    cert, key = authority.issue(name, user, groups=groups)
    path = layout.etc / f"{name}.kubeconfig"
    pki.write_kubeconfig(path, f"https://127.0.0.1:{API_PORT}", authority.ca_cert, cert, key)
    return path


def containerd(layout: Layout, pause_image: str) -> Path:
    # An overlay cannot lie on an overlay (a state directory inside another container).
    filesystem = subprocess.run(["stat", "-f", "-c", "%T", str(layout.root)], capture_output=True, text=True,
                                check=False).stdout.strip()
    snapshotter = "native" if filesystem == "overlayfs" else "overlayfs"
    return write(layout.etc / "containerd.toml", f"""\
version = 2
root = "{layout.root}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{layout.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  # Without this every sandbox fails where the score of a child may not be lowered.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{layout.etc}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
""")


def cni(layout: Layout) -> Path:
    """Each pod gets a routed link of its own (ptp): Services work without bridge netfilter."""
    return _json(layout.etc / "cni" / "10-quern.conflist", {
        "cniVersion": "1.0.0", "name": "quern", "plugins": [
            {"type": "ptp", "ipMasq": False, "mtu": 1500,
             "ipam": {"type": "host-local", "dataDir": "/run/cni-addresses",
                      "ranges": [[{"subnet": POD_RANGE}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": True}}]})


def kubelet(layout: Layout) -> Path:
    authority = layout.authority()
    cert, key = authority.issue("kubelet-serving", f"system:node:{NODE_NAME}", groups=["system:nodes"],
                                addresses=[NODE_ADDRESS], names=[NODE_NAME])
    # Pods ask the cluster's DNS; there is nobody to pass other names on to.
    resolv = write(layout.etc / "resolv.conf", "# no name server outside the cluster\n")
    never = {name: "0%" for name in ("nodefs.available", "nodefs.inodesFree", "imagefs.available",
                                     "imagefs.inodesFree")}
    return _json(layout.etc / "kubelet.json", {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS, "healthzBindAddress": "127.0.0.1", "healthzPort": 10248,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True},
                           "x509": {"clientCAFile": str(authority.ca_cert)}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(cert), "tlsPrivateKeyFile": str(key),
        "clusterDNS": [DNS_ADDRESS], "clusterDomain": DOMAIN, "resolvConf": str(resolv),
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False, "failSwapOn": False,
        # The disk is shared with the person's other work: how full it is must not evict pods, nor
        # collect images, which no registry could give back.
        "evictionHard": {"memory.available": "100Mi", **never},
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "registerNode": True})


def _can_use_nftables() -> bool:
    nft = shutil.which("nft")
    return bool(nft) and subprocess.run([nft, "list", "tables"], capture_output=True, check=False).returncode == 0


def kube_proxy(layout: Layout) -> Path:
    kubeconfig = part_kubeconfig(layout, "kube-proxy", "system:kube-proxy")
    return _json(layout.etc / "kube-proxy.json", {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables" if _can_use_nftables() else "iptables", "clusterCIDR": POD_RANGE,
        "clientConnection": {"kubeconfig": str(kubeconfig)}, "hostnameOverride": NODE_NAME,
        "bindAddress": NODE_ADDRESS, "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
        # These settings can be written in the machine's first network namespace only.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}})


def coredns(layout: Layout) -> Path:
    kubeconfig = part_kubeconfig(layout, "coredns", "quern:coredns")
    return write(layout.etc / "Corefile", f"""\
{DOMAIN}:53 in-addr.arpa:53 {{
    bind {NODE_ADDRESS}
    health 127.0.0.1:18080
    ready 127.0.0.1:18181
    errors
    loadbalance
    cache 5
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
}}
# There is nothing outside: every other name does not exist, and is said so at once.
.:53 {{
    bind {NODE_ADDRESS}
    template IN ANY . {{
        rcode NXDOMAIN
    }}
}}
""")


def targets_file(layout: Layout) -> Path:
    """Where `discovery` writes the pods to scrape, and Prometheus reads them."""
    return layout.root / "prometheus" / "pods.json"


def prometheus(layout: Layout) -> Path:
    """Scrapes every running pod of the real node that asks for it, and the kubelet's view of containers."""
    authority = layout.authority()
    cert, key = authority.issue("prometheus", "quern:prometheus")
    annotation = "__meta_kubernetes_pod_annotation_prometheus_io_"
    pods = {
        "job_name": "pods",
        # Debian's Prometheus has no Kubernetes discovery; the file has the labels that it would give.
        "file_sd_configs": [{"files": [str(targets_file(layout))]}],
        "relabel_configs": [
            {"source_labels": [annotation + "scheme"], "regex": "(https?)", "target_label": "__scheme__"},
            {"source_labels": [annotation + "path"], "regex": "(.+)", "target_label": "__metrics_path__"},
            {"source_labels": ["__meta_kubernetes_pod_ip", annotation + "port"], "regex": "(.+);(\\d+)",
             "replacement": "$1:$2", "target_label": "__address__"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            {"source_labels": ["__meta_kubernetes_pod_node_name"], "target_label": "node"},
            {"source_labels": ["__meta_kubernetes_pod_label_serving_quern_dev_endpoint"], "target_label": "endpoint"},
            {"source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_name"], "target_label": "app"},
        ],
    }
    containers = {
        "job_name": "containers", "scheme": "https", "metrics_path": "/metrics/cadvisor",
        "static_configs": [{"targets": [f"{NODE_ADDRESS}:10250"]}],
        "tls_config": {"ca_file": str(authority.ca_cert), "cert_file": str(cert), "key_file": str(key)},
        # Of some 60 series per container, those that say what a pod uses.
        "metric_relabel_configs": [{
            "source_labels": ["__name__"], "action": "keep",
            "regex": "container_(cpu_usage_seconds_total|cpu_cfs_throttled_periods_total|"
                     "memory_working_set_bytes|memory_rss|memory_max_usage_bytes)"}],
    }
    return _json(layout.etc / "prometheus.json", {
        "global": {"scrape_interval": "5s", "scrape_timeout": "4s", "evaluation_interval": "5s"},
        "scrape_configs": [pods, containers]})
