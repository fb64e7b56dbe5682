"""What `up` puts into the API itself: roles of the cluster's own parts, and their Services."""

from .. import kube_api
from .layout import DNS_ADDRESS, NODE_ADDRESS, PROMETHEUS_ADDRESS

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_READ = ["get", "list", "watch"]
_WRITE = [*_READ, "create", "update", "patch", "delete"]

_ROLES = {
    "coredns": [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": _READ},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": _READ}],
    "prometheus": [
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": _READ},
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}],
    "kwok": [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": _READ},
        {"apiGroups": [""], "resources": ["nodes/status", "pods/status"], "verbs": ["update", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": [*_READ, "update", "patch", "delete"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": _WRITE},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": _WRITE}],
}


def _apply_role(client: kube_api.Client, name: str, rules: list) -> None:
    role = f"quern-local-{name}"
    client.apply(f"{_RBAC}/clusterroles/{role}", {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role},
        "rules": rules})
    client.apply(f"{_RBAC}/clusterrolebindings/{role}", {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"quern:{name}"}]})


def _apply_service(client: kube_api.Client, namespace: str, name: str, address: str, ports: list[dict]) -> None:
    """A Service for a process on the node itself: no selector, its one endpoint written by hand."""
    client.apply(f"/api/v1/namespaces/{namespace}/services/{name}", {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": ports}})
    client.apply(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}", {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": port["name"], "port": port["port"], "protocol": port["protocol"]} for port in ports],
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}]})


def apply(client: kube_api.Client) -> None:
    for name, rules in _ROLES.items():
        _apply_role(client, name, rules)
    client.apply("/api/v1/namespaces/monitoring", {
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}})
    _apply_service(client, "kube-system", "kube-dns", DNS_ADDRESS, [
        {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}])
    _apply_service(client, "monitoring", "prometheus", PROMETHEUS_ADDRESS, [
        {"name": "http", "port": 9090, "protocol": "TCP"}])


# What NVIDIA's GPU Operator makes, and pods with GPUs name. No handler of that name is on the real node.
RUNTIME_CLASS = "/apis/node.k8s.io/v1/runtimeclasses/nvidia"


def runtime_class() -> dict:
    return {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}


def gpu_node(name: str, gpus: int, product: str, memory: int) -> tuple[dict, dict]:
    """(node, status patch) of a simulated node with `gpus` GPUs of `memory` MiB each, labelled as the GPU Operator's feature discovery does.

    Its taint keeps away every pod that does not tolerate it.
    """
    resources = {"cpu": "96", "memory": "1Ti", "pods": "110", "ephemeral-storage": "1Ti", "nvidia.com/gpu": str(gpus)}
    node = {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                       "type": "kwok", "nvidia.com/gpu.product": product, "nvidia.com/gpu.count": str(gpus),
                       "nvidia.com/gpu.memory": str(memory), "nvidia.com/gpu.present": "true"}},
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]}}
    return node, {"status": {"capacity": resources, "allocatable": resources}}
