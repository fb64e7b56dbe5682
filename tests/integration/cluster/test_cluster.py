"""The local cluster does what a real one does, repairs itself, and leaves nothing behind."""

import http.client
import json
import os
import signal
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest
from conftest import REPO, listening_beyond_loopback, wait_for
from quern_dev.cluster import commands, machine, node
from quern_dev.cluster.layout import MODEL_ROOT, NODE_ADDRESS, NODE_NAME
from quern_dev.cluster.lifecycle import Cluster
from quern_dev.processes import start_time


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.read().decode()
    except (OSError, http.client.HTTPException):
        return None


def pids(cluster):
    return {name: cluster.registry.pid(name) for name in cluster.registry.names()}


def test_a_pod_reaches_a_service_by_name_as_an_unprivileged_user(world):
    world.apply(world.answering("web", "one"), world.service("web"), world.deployment("client", ["sleep", "100000"]))
    world.wait_running("web", 1)
    world.wait_running("client", 1)
    wait_for(lambda: world.kubectl("exec", "deploy/client", "--", "curl", "-s", "http://web.default.svc.cluster.local:8000",
                                   check=False) == "one\n", 30, "an answer through the Service")
    assert "uid=65532" in world.kubectl("exec", "deploy/client", "--", "id")


def test_nothing_outside_the_cluster_is_reached_from_a_pod(world):
    world.wait_running("client", 1)
    for url in ("http://198.51.100.1/", "http://example.test/", "http://10.243.0.9/"):
        world.kubectl("exec", "deploy/client", "--", "sh", "-c", f"if curl -s -m 5 {url}; then exit 1; fi")


def test_a_forward_goes_through_the_service_and_finds_it_again_when_it_is_made_anew(world):
    world.wait_running("web", 1)
    target = commands.resolve_target(world.cluster.layout.client(), "default/web:http")
    name, port = world.cluster.forward(target, 0)
    url = f"http://127.0.0.1:{port}/"
    wait_for(lambda: fetch(url) == "one\n", 30, "an answer through the forward")
    world.kubectl("delete", "service", "web")
    world.apply(world.service("web"))
    wait_for(lambda: fetch(url) == "one\n", 30, "an answer through the new Service")
    world.cluster.registry.stop([name], 5)
    assert fetch(url) is None


def test_models_of_the_machine_are_on_the_node_and_cannot_be_written(world):
    world.apply(world.deployment(
        "reader", ["sh", "-c", "ls /models; if (: > /models/x); then exit 1; fi; echo read-only; sleep 100000"],
        container={"volumeMounts": [{"name": "models", "mountPath": "/models"}]},
        volumes=[{"name": "models", "hostPath": {"path": MODEL_ROOT, "type": "Directory"}}]))
    world.wait_running("reader", 1)
    wait_for(lambda: "read-only" in world.kubectl("logs", "deploy/reader"), 30, "the pod's words")


def test_simulated_gpu_nodes_take_only_pods_that_ask_for_them(world):
    commands.gpu_nodes(world.cluster, 2, 8, "NVIDIA-H100", 81559)
    world.apply(world.deployment(
        "gpu", ["none"], replicas=3, nodeSelector={"nvidia.com/gpu.product": "NVIDIA-H100", "nvidia.com/gpu.count": "8",
                                             "nvidia.com/gpu.memory": "81559"}, runtimeClassName="nvidia",
        tolerations=[{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
        container={"resources": {"limits": {"nvidia.com/gpu": "8"}}}))
    placed = world.wait_running("gpu", 2)  # two nodes with 8 GPUs each: the third pod finds none
    assert {pod["spec"]["nodeName"] for pod in placed} == {"gpu-0", "gpu-1"}
    world.apply(world.deployment("plain", ["sleep", "100000"], replicas=4))
    assert {pod["spec"]["nodeName"] for pod in world.wait_running("plain", 4)} == {NODE_NAME}
    world.kubectl("delete", "deployment", "gpu", "plain")
    commands.gpu_nodes(world.cluster, 0)
    assert world.kubectl("get", "runtimeclass", "-o", "name") == ""
    assert [n["metadata"]["name"] for n in world.cluster.layout.client().get("/api/v1/nodes")["items"]] == [NODE_NAME]


def test_prometheus_scrapes_a_pod_that_asks_for_it(world):
    world.apply(world.answering("measured", "answer 42", annotations={
        "prometheus.io/scrape": "true", "prometheus.io/port": "8000"}))
    world.wait_running("measured", 1)
    url = f"http://127.0.0.1:{world.cluster.layout.port('prometheus')}/api/v1/query?query=answer"

    def sample():
        return json.loads(fetch(url) or "{}").get("data", {}).get("result")

    (found,) = wait_for(sample, 60, "the sample")
    assert found["value"][1] == "42"
    assert found["metric"]["namespace"] == "default"
    assert found["metric"]["pod"].startswith("measured-")


def test_the_api_refuses_an_account_that_has_no_role(world):
    token = world.kubectl("create", "token", "default").strip()
    result = subprocess.run(
        ["curl", "-s", "--cacert", str(world.cluster.layout.authority().ca_cert), "-H", f"Authorization: Bearer {token}",
         f"https://127.0.0.1:{world.cluster.layout.port('api')}/api/v1/secrets"], capture_output=True, text=True, check=True)
    answer = json.loads(result.stdout)
    assert answer["code"] == 403
    assert "system:serviceaccount:default:default" in answer["message"]


def command_line(world, *arguments):
    """hack/cluster as a person runs it: (exit code, what it said)."""
    done = subprocess.run([REPO / "hack" / "cluster", *arguments], capture_output=True, text=True, check=False, timeout=60,
                          stdin=subprocess.DEVNULL, env={**os.environ, "QUERN_STATE": str(world.cluster.layout.root)})
    return done.returncode, done.stdout + done.stderr


def test_the_command_line_shows_reaches_and_runs_inside(world):
    code, said = command_line(world, "status")
    assert code == 0 and "cluster: up" in said and "kube-apiserver" in said
    code, said = command_line(world, "status", "--json")
    report = json.loads(said)
    assert report["state"] == "up" and report["missing"] == [] and report["nodes"][0]["ready"]
    code, said = command_line(world, "forward", "default/web:http", "0", "--background")
    assert code == 0
    url = said.strip()
    wait_for(lambda: fetch(url) == "one\n", 30, "an answer through the forward")
    assert command_line(world, "stop-forward", url.rpartition(":")[2])[0] == 0
    assert fetch(url) is None
    assert command_line(world, "kubectl", "get", "nodes", "-o", "name") == (0, f"node/{NODE_NAME}\n")
    code, said = command_line(world, "exec", "--", "ip", "-brief", "address", "show", "node0")
    assert code == 0 and NODE_ADDRESS in said


def test_the_command_line_says_what_is_wrong(world):
    for arguments, word in ((("forward", "web", "0"), "NAMESPACE/SERVICE:PORT"), (("forward", "default/nothing:80", "0"), "nothing"),
                            (("stop-forward", "1"), "status"), (("load", "/nowhere.tar"), "hack/images")):
        code, said = command_line(world, *arguments)
        assert code == 1 and word in said and "Traceback" not in said, said


def test_nothing_listens_beyond_loopback_outside_the_clusters_own_network(world):
    assert world.cluster.layout.port("api")
    assert listening_beyond_loopback() <= world.listening_before


def test_another_cluster_that_ends_takes_nothing_of_this_one_away(world):
    """Both cover the same directories of the machine; only the last one to end may remove them."""
    with tempfile.TemporaryDirectory(prefix="quern-c2-") as directory:
        other = Cluster(Path(directory) / "s")
        other.layout.make()
        node.start_holder(other.layout, other.registry)
        node.stop_holder(other.layout, other.registry)
    assert machine.mounted_anywhere([MODEL_ROOT])
    world.kubectl("delete", "pod", "-l", "app=web", "--wait=false")
    # A new pod needs the kubelet's directory, and a reader the models'.
    wait_for(lambda: len(world.running("web")) == 1, 90, "a new pod")
    world.kubectl("exec", "deploy/reader", "--", "ls", "/models")


def test_up_again_starts_nothing(world):
    before = pids(world.cluster)
    world.cluster.up()
    assert pids(world.cluster) == before


@pytest.mark.parametrize("victims", [["etcd"], ["kube-apiserver", "relay-api"], ["containerd", "kubelet"],
                                     ["kube-proxy", "coredns", "kwok", "prometheus", "discovery"]])
def test_up_repairs_what_was_killed_and_leaves_the_rest_alone(world, victims):
    before = pids(world.cluster)
    for victim in victims:
        os.kill(before[victim], signal.SIGKILL)
        wait_for(lambda name=victim: world.cluster.registry.pid(name) is None, 20, f"{victim} to end")
    world.cluster.up()
    after = pids(world.cluster)
    assert {name for name in after if after[name] != before[name]} == set(victims)
    assert all(after.values())
    assert len(world.wait_running("web", 1)) == 1


def test_pods_and_data_come_back_after_the_node_was_lost_at_once(world):
    everything = [pid for pid in pids(world.cluster).values() if pid]
    os.kill(world.cluster.registry.pid("holder"), signal.SIGKILL)
    wait_for(lambda: not any(start_time(pid) for pid in everything), 20, "every process inside to end")
    world.cluster.up()
    # The API remembers the pod as it was until the new kubelet has looked.
    wait_for(lambda: any(pod["status"]["containerStatuses"][0]["restartCount"] >= 1 for pod in world.running("web")),
             90, "the pod to run again")


def test_down_leaves_nothing_and_up_brings_the_data_back(world):
    cluster = world.cluster
    everything = [pid for pid in pids(cluster).values() if pid]
    api = cluster.layout.port("api")
    cluster.down()
    assert not [pid for pid in everything if start_time(pid)]
    assert cluster.registry.names() == []
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{cluster.layout.cgroup}"))
    assert str(cluster.layout.root) not in Path("/proc/mounts").read_text()
    assert fetch(f"https://127.0.0.1:{api}/readyz") is None
    assert [path.name for path in machine.RECORDS.iterdir()] == ["lock"] or machine.mounted_anywhere([MODEL_ROOT])
    cluster.up()
    assert cluster.layout.port("api") == api
    world.wait_running("web", 1)
