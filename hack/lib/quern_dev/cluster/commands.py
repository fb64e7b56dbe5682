"""The subcommands of hack/cluster beyond up, down and status."""

import os
import re
import signal
import sys
import time

from .. import console, golang, kube_api
from ..processes import wait_until
from . import objects
from .layout import DOMAIN
from .lifecycle import Cluster

_TARGET = re.compile(r"(?P<namespace>[a-z0-9-]+)/(?P<pod>pod/)?(?P<name>[a-z0-9.-]+):(?P<port>[a-z0-9-]+)")


def resolve_target(client: kube_api.Client, text: str) -> str:
    """NAMESPACE/SERVICE:PORT or NAMESPACE/pod/NAME:PORT as HOST:PORT inside. PORT may be a Service port's name."""
    match = _TARGET.fullmatch(text)
    if not match:
        raise console.Failure(f"{text!r} is not NAMESPACE/SERVICE:PORT (or NAMESPACE/pod/NAME:PORT); "
                              "for example monitoring/prometheus:9090")
    namespace, name, port = match["namespace"], match["name"], match["port"]
    kind = "pods" if match["pod"] else "services"
    try:
        found = client.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
    except kube_api.ApiError as error:
        raise console.Failure(f"cannot forward to {text}: {error}") from error
    if match["pod"]:
        address = found["status"].get("podIP")
        if not address or not port.isdigit():
            raise console.Failure(f"cannot forward to {text}: "
                                  + ("the pod has no address yet" if not address else "a pod's port is a number"))
        return f"{address}:{port}"
    ports = {str(p["port"]): p["port"] for p in found["spec"]["ports"]}
    ports.update({p["name"]: p["port"] for p in found["spec"]["ports"] if p.get("name")})
    if port not in ports:
        raise console.Failure(f"Service {namespace}/{name} has no port {port}; it has: {', '.join(ports)}")
    # By name, so that the Service may be made anew; the final dot keeps search lists out of it.
    return f"{name}.{namespace}.svc.{DOMAIN}.:{ports[port]}"


def forward(cluster: Cluster, text: str, port: int, background: bool) -> int:
    """Prints the URL; then waits until it is interrupted, unless it stays in the background."""
    target = resolve_target(cluster.layout.client(), text)
    name, port = cluster.forward(target, port)
    print(f"http://127.0.0.1:{port}", flush=True)
    if background:
        return 0
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while cluster.registry.pid(name):
            time.sleep(0.2)
        raise console.Failure(f"the relay to {text} has ended:\n{cluster.registry.log_tail(name)}")
    except KeyboardInterrupt:
        return 0
    finally:
        cluster.registry.stop([name], 5)


def stop_forward(cluster: Cluster, port: int) -> int:
    name = f"forward-{port}"
    if cluster.registry.read(name) is None:
        raise console.Failure(f"nothing forwards port {port}; hack/cluster status lists what does")
    cluster.registry.stop([name], 5)
    return 0


def execute(cluster: Cluster, command: list[str]) -> int:
    """Replaces this process by a command inside the cluster's network (and only the network)."""
    if not command:
        raise console.Failure("give a command, for example: hack/cluster exec -- ip address")
    cluster.require_up().enter(("net",))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise console.Failure(f"cannot run {command[0]}: {error.strerror}") from error


def kubectl(cluster: Cluster, arguments: list[str]) -> int:
    program = golang.program("kubernetes", "kubectl")
    os.execve(program, ["kubectl", *arguments], dict(os.environ, KUBECONFIG=str(cluster.layout.kubeconfig)))


def load(cluster: Cluster, archives) -> int:
    cluster.load(archives)
    return 0


def gpu_nodes(cluster: Cluster, count: int, gpus: int = 8, product: str = "NVIDIA-H100-80GB-HBM3", memory: int = 81559) -> int:
    """Brings the number of simulated nodes to `count`: makes, changes, or removes them; with any, there is the RuntimeClass nvidia.

    `memory` is each GPU's, in MiB.
    """
    cluster.require_up()
    client = cluster.layout.client()
    if count:
        client.apply(objects.RUNTIME_CLASS, objects.runtime_class())
    else:
        try:
            client.request("DELETE", objects.RUNTIME_CLASS)
        except kube_api.ApiError as error:
            if error.status != 404:
                raise
    for index in range(count):
        node, status = objects.gpu_node(f"gpu-{index}", gpus, product, memory)
        path = f"/api/v1/nodes/{node['metadata']['name']}"
        client.apply(path, node)
        client.request("PATCH", path + "/status", status, "application/merge-patch+json")

    def simulated() -> list[dict]:
        return client.get("/api/v1/nodes?labelSelector=type%3Dkwok")["items"]

    for item in simulated():
        name = item["metadata"]["name"]
        if name not in {f"gpu-{index}" for index in range(count)}:
            client.request("DELETE", f"/api/v1/nodes/{name}")

    def settled() -> bool:
        nodes = simulated()
        return len(nodes) == count and all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", []))
            for item in nodes)

    with console.stage("wait for the simulated nodes", quiet_below=1):
        if not wait_until(settled, 60, interval=0.2):
            raise console.Failure(f"the simulated nodes are not Ready after 60 s; see {cluster.layout.logs}/kwok.log")
    console.say(f"cluster: {count} simulated node{'s' if count != 1 else ''}"
                + (f" with {gpus} × {product} each" if count else ""))
    return 0
