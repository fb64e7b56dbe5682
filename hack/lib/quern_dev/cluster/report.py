"""What `hack/cluster status` says."""

import json
import os
import time

from .. import console, kube_api
from . import node, parts
from .layout import NODE_NAME, Layout
from .lifecycle import Cluster

_EXPECTED = (node.HOLDER, "etcd", "containerd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet",
             "kube-proxy", "coredns", "kwok", "discovery", "prometheus", *(f"relay-{name}" for name in parts.RELAYS))


def memory_mib(pid: int) -> float:
    """Resident memory of one process, in MiB."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    except OSError:
        return 0.0


def urls(layout: Layout) -> dict:
    return {"kubeconfig": str(layout.kubeconfig), "api-url": f"https://127.0.0.1:{layout.port('api')}",
            "prometheus-url": f"http://127.0.0.1:{layout.port('prometheus')}",
            "containerd-socket": str(layout.containerd_socket), "data-directory": str(layout.root)}


def collect(cluster: Cluster) -> dict:
    """Everything as one value. `state` is "up", "degraded" (some part has ended or the API is silent) or "down"."""
    registry = cluster.registry
    processes = []
    for name in dict.fromkeys([*_EXPECTED, *registry.names()]):
        pid = registry.pid(name)
        processes.append({"name": name, "pid": pid, "memory_mib": round(memory_mib(pid), 1) if pid else 0,
                          "uptime_s": round(time.time() - registry.started_at(name)) if pid else 0,
                          **({"target": registry.read(name)["target"]} if name.startswith("forward-") else {})})
    missing = [process["name"] for process in processes if not process["pid"] and process["name"] in _EXPECTED]
    if cluster.namespaces() is None:
        return {"state": "down", "processes": [], **urls(cluster.layout)}
    nodes, pods, problem = [], 0, ""
    try:
        client = cluster.layout.client(timeout=5)
        for item in client.get("/api/v1/nodes")["items"]:
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", []))
            nodes.append({"name": item["metadata"]["name"], "ready": ready,
                          "gpus": item["status"].get("allocatable", {}).get("nvidia.com/gpu", "0"),
                          "simulated": item["metadata"]["name"] != NODE_NAME})
        pods = len(client.get("/api/v1/pods")["items"])
    except (kube_api.ApiError, OSError) as error:
        problem = f"the API server does not answer: {error}"
    healthy = not missing and not problem and any(n["name"] == NODE_NAME and n["ready"] for n in nodes)
    return {"state": "up" if healthy else "degraded", "missing": missing, "problem": problem, "processes": processes,
            "nodes": nodes, "pods": pods, **urls(cluster.layout)}


def show(cluster: Cluster, as_json: bool) -> int:
    """Prints it. Exit code 0 when up, 3 when down, 4 when degraded."""
    report = collect(cluster)
    if as_json:
        print(json.dumps(report, indent=1))
    elif report["state"] == "down":
        console.say("cluster: down (start it with: hack/cluster up)")
    else:
        _print(report)
    return {"up": 0, "down": 3}.get(report["state"], 4)


def _print(report: dict) -> None:
    console.say(f"cluster: {report['state']}")
    total = sum(process["memory_mib"] for process in report["processes"])
    for process in report["processes"]:
        state = f"pid {process['pid']:<8} {process['memory_mib']:7.0f} MiB  {process['uptime_s']:6d} s" \
            if process["pid"] else "not running"
        console.say(f"  {process['name']:<26} {state}  {process.get('target', '')}".rstrip())
    console.say(f"  {'together':<26} {'':12} {total:7.0f} MiB")
    for item in report["nodes"]:
        kind = f"simulated, {item['gpus']} GPUs" if item["simulated"] else "real"
        console.say(f"  node {item['name']:<21} {'Ready' if item['ready'] else 'NotReady'} ({kind})")
    console.say(f"  pods: {report['pods']}")
    if report["state"] == "degraded":
        console.say(f"  {report['problem'] or 'ended: ' + ', '.join(report['missing'])}"
                    "; put it right with: hack/cluster up")
    console.say(f"  export KUBECONFIG={report['kubeconfig']}")
    console.say(f"  Prometheus: {report['prometheus-url']}")
