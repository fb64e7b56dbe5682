"""Apply -> objects -> status, through a real API server."""

import http.server
import json
import re
import threading
import time
import urllib.request

import pytest

from conftest import IMAGE, wait
from quern_dev import kube_api

KINDS = {"serviceaccounts/a", "services/a", "networkpolicies/a", "poddisruptionbudgets/a", "deployments/a-cpu"}


def made(world, name="a"):
    return wait(lambda: (lambda c: c if len(c) == 5 else None)(world.children(name)),
                lambda: f"five objects of {name}: {list(world.children(name))}")


def serving(world, name="a", replicas=1):
    """Brings the endpoint to Ready, as controllers and kubelets would."""
    made(world, name)
    world.deployment_status(f"{name}-cpu", replicas, replicas)
    wait(lambda: world.condition(name, "Ready").get("status") == "True", lambda: f"Ready: {world.endpoint(name)}")


@pytest.mark.parametrize("spec, words", [
    ({"model": {"uri": "https://x/a.gguf"}}, "spec.model.uri: scheme not supported; write file:///"),
    ({"model": {"uri": "file:///models/../a"}}, "spec.model.uri: the path must have no '..'"),
    ({"model": {"uri": "pvc://claim"}}, "spec.model.uri: must name a claim and a path"),
    ({"model": {"uri": "file:///models/a b.gguf"}}, "spec.model.uri: must contain no spaces or control characters"),
    ({"model": {"uri": "file:///models/a\nb.gguf"}}, "spec.model.uri: must contain no spaces or control characters"),
    ({"model": {"uri": "pvc://claim/a\u007f.gguf"}}, "spec.model.uri: must contain no spaces or control characters"),
    ({"scaling": {"stableWindow": "9s", "panicWindow": "5s"}}, "spec.scaling.stableWindow: must be 10s to 1h"),
    ({"scaling": {"stableWindow": "1h1s"}}, "spec.scaling.stableWindow: must be 10s to 1h"),
    ({"scaling": {"panicWindow": "4s"}}, "spec.scaling.panicWindow: must be 5s to 10m"),
    ({"scaling": {"panicWindow": "601s", "stableWindow": "1h"}}, "spec.scaling.panicWindow: must be 5s to 10m"),
    ({"scaling": {"scaleDownDelay": "61m"}}, "spec.scaling.scaleDownDelay: must be at most 1h"),
    ({"scaling": {"scaleDownDelay": "-1s"}}, "spec.scaling.scaleDownDelay"),
    ({"rollout": {"drainTimeout": "0s"}}, "spec.rollout.drainTimeout: must be 1s to 1h"),
    ({"rollout": {"drainTimeout": "61m"}}, "spec.rollout.drainTimeout: must be 1s to 1h"),
    ({"scaling": {"minReplicas": 3, "maxReplicas": 2}}, "spec.scaling.minReplicas: must not be above spec.scaling.maxReplicas"),
    ({"scaling": {"minReplicas": 0}}, "spec.scaling.minReplicas"),
    ({"scaling": {"maxReplicas": 2}}, "spec.scaling.targetTokensPerSecond: needed when maxReplicas"),
    ({"scaling": {"maxReplicas": 2, "targetTokensPerSecond": "fast"}}, "spec.scaling.targetTokensPerSecond"),
    ({"scaling": {"maxReplicas": 2, "targetTokensPerSecond": "0"}}, "spec.scaling.targetTokensPerSecond: must be above 0"),
    ({"scaling": {"panicWindow": "5m", "stableWindow": "1m"}}, "spec.scaling.panicWindow: must not be longer"),
    ({"replicas": 2}, "spec.replicas: only counts with spec.scaling.mode external"),
    ({"hardware": [{"name": "x", "resources": {"limits": {"cpu": "1"}}}]}, "must name cpu and memory"),
    ({"hardware": [{"name": "x", "resources": {"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": 2}}}]},
     "tensorParallel: must equal the GPUs asked for"),
    ({"hardware": [{"name": "x", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1", "memory": "1Gi"}}}]},
     "requests: must not be above resources.limits"),
])
def test_bad_spec(world, spec, words):
    with pytest.raises(kube_api.ApiError) as refused:
        world.create("a", **spec)
    assert refused.value.status == 422
    assert words in str(refused.value)


@pytest.mark.parametrize("spec", [
    {"scaling": {"stableWindow": "10s", "panicWindow": "5s", "scaleDownDelay": "0s"}, "rollout": {"drainTimeout": "1s"}},
    {"scaling": {"stableWindow": "1h", "panicWindow": "10m", "scaleDownDelay": "1h"}, "rollout": {"drainTimeout": "60m"}},
    {"model": {"uri": "pvc://claim-1.a/dir/a_b-c,d%20\u00e9.gguf"}},
])
def test_the_ends_of_the_ranges_are_good(world, spec):
    world.create("a", **spec)


@pytest.mark.parametrize("name", ["1a", "a.b", "a" * 41])
def test_bad_name(world, name):
    with pytest.raises(kube_api.ApiError) as refused:
        world.create(name)
    assert refused.value.status == 422
    assert "metadata.name: must be a DNS label of at most 40 characters that begins with a letter" in str(refused.value)


@pytest.mark.parametrize("name", ["a", "a" * 40, "a-1"])
def test_good_name(world, name):
    world.create(name)


def test_defaults_are_the_schemas(world):
    spec = world.create("a")["spec"]
    assert spec["scaling"] == {"mode": "builtin", "minReplicas": 1, "maxReplicas": 1, "targetUtilization": "0.8",
                               "stableWindow": "60s", "panicWindow": "10s", "scaleDownDelay": "5m"}
    assert spec["hardware"][0]["resources"]["limits"] == {"cpu": "1", "memory": "2Gi"}
    assert spec["rollout"] == {"drainTimeout": "30s"}


def test_an_endpoint_gets_its_objects_and_a_status(world, operator):
    world.create("a")
    children = made(world)
    assert set(children) == KINDS
    container = children["deployments/a-cpu"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == IMAGE
    assert container["args"][0] == "/models/a.gguf"
    endpoint = wait(lambda: (lambda e: e if e.get("status") else None)(world.endpoint("a")), "a status")
    assert endpoint["metadata"]["finalizers"] == ["serving.quern.dev/cleanup"]
    assert endpoint["status"]["url"] == f"http://a.{world.namespace}.svc.cluster.local"
    assert endpoint["status"]["desiredReplicas"] == 1
    assert world.condition("a", "Ready")["reason"] == "Starting"
    serving(world)
    endpoint = world.endpoint("a")
    assert endpoint["status"]["observedGeneration"] == endpoint["metadata"]["generation"]
    assert endpoint["status"]["readyReplicas"] == 1
    for kind, status in (("Available", "True"), ("Progressing", "False"), ("Degraded", "False")):
        assert world.condition("a", kind)["status"] == status, endpoint["status"]
    wait(lambda: any(e[:2] == ("Normal", "Ready") for e in world.events("a")), lambda: f"events: {world.events('a')}")


@pytest.mark.parametrize("kind, body", [
    ("serviceaccounts", {"metadata": {"name": "a"}}),
    ("services", {"metadata": {"name": "a"}, "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 5432}]}}),
    ("networkpolicies", {"metadata": {"name": "a"}, "spec": {"podSelector": {"matchLabels": {"app": "theirs"}}}}),
])
def test_an_object_of_somebody_else_is_never_taken_over(world, operator, kind, body):
    """Whoever may only create endpoints must not get hold of other objects by giving an endpoint their name."""
    before = world.api.request("POST", world.path(kind), body)
    world.create("a")
    degraded = wait(lambda: (lambda c: c if c.get("reason") == "NameTaken" else None)(world.condition("a", "Degraded")),
                    lambda: f"NameTaken: {world.endpoint('a').get('status')}")
    assert before["kind"] in degraded["message"] and f"{world.namespace}/a" in degraded["message"]
    assert world.condition("a", "Ready")["reason"] == "NameTaken"
    wait(lambda: any(e[:2] == ("Warning", "NameTaken") for e in world.events("a")), lambda: f"events: {world.events('a')}")
    assert f"{kind}/a" not in world.children("a")
    assert world.get("deployments", "a-cpu") is None  # no pod runs under a foreign account or policy
    world.delete("inferenceendpoints", "a")
    wait(lambda: not world.endpoint("a"), "the endpoint's end")
    assert world.get(kind, "a")["metadata"] == before["metadata"]


def test_an_own_object_whose_labels_were_taken_off_is_found_again(world, operator):
    world.create("a")
    uid = made(world)["services/a"]["metadata"]["uid"]
    world.patch("services", "a", {"metadata": {"labels": None}})
    labels = wait(lambda: world.get("services", "a")["metadata"].get("labels"), "the labels")
    assert labels["app.kubernetes.io/managed-by"] == "quern-operator"
    assert world.get("services", "a")["metadata"]["uid"] == uid


def test_a_settled_endpoint_is_left_alone(world, operator):
    world.create("a")
    serving(world)
    wait(lambda: world.condition("a", "ScalingActive"), "ScalingActive")
    versions = {k: c["metadata"]["resourceVersion"] for k, c in world.children("a").items()}
    endpoint = world.endpoint("a")["metadata"]["resourceVersion"]
    time.sleep(3)  # several rounds of the scaler: what must not happen cannot be waited for
    assert {k: c["metadata"]["resourceVersion"] for k, c in world.children("a").items()} == versions
    assert world.endpoint("a")["metadata"]["resourceVersion"] == endpoint


def test_deleted_and_edited_objects_are_put_right(world, operator):
    world.create("a")
    before = made(world)
    for key in KINDS:
        kind, name = key.split("/")
        world.delete(kind, name)
    wait(lambda: set(world.children("a")) == KINDS and
         all(world.children("a")[k]["metadata"]["uid"] != before[k]["metadata"]["uid"] for k in KINDS),
         "all of them again, new")
    world.patch("deployments", "a-cpu", {"spec": {"replicas": 7, "template": {"spec": {"containers": [
        {"name": "quern-serve", "image": "somebody/else:1"}]}}}})
    world.patch("services", "a", {"spec": {"selector": {"app.kubernetes.io/name": "else"}}})

    def right():
        deployment = world.get("deployments", "a-cpu")["spec"]
        return (deployment["replicas"] == 1 and deployment["template"]["spec"]["containers"][0]["image"] == IMAGE
                and world.get("services", "a")["spec"]["selector"]["app.kubernetes.io/name"] == "quern-serve")
    wait(right, lambda: json.dumps(world.get("deployments", "a-cpu")["spec"]))
    wait(lambda: any(e[1] == "DriftCorrected" for e in world.events("a")), lambda: f"events: {world.events('a')}")


def test_a_changed_spec_rolls_out(world, operator):
    world.create("a")
    serving(world)
    world.patch("inferenceendpoints", "a", {"spec": {"runtime": {"maxSequences": 5, "image": "other:2"},
                                                     "rollout": {"drainTimeout": "2m"}}})

    def rolled():
        pod = world.get("deployments", "a-cpu")["spec"]["template"]["spec"]
        args = pod["containers"][0]["args"]
        return (pod["containers"][0]["image"] == "other:2" and "--max-sequences" in args
                and pod["terminationGracePeriodSeconds"] > 120)
    wait(rolled, "the new template")
    wait(lambda: world.condition("a", "Progressing").get("status") == "True", "Progressing")
    assert world.condition("a", "Ready")["status"] == "True"  # the old replica still serves


def test_a_renamed_variant_replaces_the_deployment_without_a_gap(world, operator):
    world.create("a")
    serving(world)
    limits = {"resources": {"limits": {"cpu": "2", "memory": "2Gi"}}}
    world.patch("inferenceendpoints", "a", {"spec": {"hardware": [{"name": "big", **limits}]}})
    wait(lambda: world.get("deployments", "a-big"), "the new Deployment")
    assert world.get("deployments", "a-cpu"), "the old one must stay until the new one serves"
    world.deployment_status("a-big", 1, 1)
    wait(lambda: world.get("deployments", "a-cpu") is None, "the old one to go")


def test_a_renamed_variant_takes_over_replica_by_replica(world, operator):
    world.create("a", scaling={"minReplicas": 3, "maxReplicas": 3})
    serving(world, replicas=3)
    limits = {"resources": {"limits": {"cpu": "2", "memory": "2Gi"}}}
    world.patch("inferenceendpoints", "a", {"spec": {"hardware": [{"name": "big", **limits}]}})
    wait(lambda: world.get("deployments", "a-big"), "the new Deployment")
    for ready in (1, 2):
        world.deployment_status("a-big", 3, ready)
        wait(lambda: world.get("deployments", "a-cpu")["spec"]["replicas"] == 3 - ready, f"the old one to give up {ready}")
    world.deployment_status("a-big", 3, 3)
    wait(lambda: world.get("deployments", "a-cpu") is None, "the old one to go")


LOADING = {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}


def container(state: dict, last: dict | None = None) -> dict:
    return {**LOADING, "containerStatuses": [{
        "name": "quern-serve", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 2, "state": state,
        "lastState": last or {}}]}


ENDED = {"terminated": {"exitCode": 2, "reason": "Error", "message": "2026-01-02T03:04:05.678Z info starting\n"
                        "2026-01-02T03:04:05.700Z error /models/a.gguf: no such file; check spec.model.uri\n"}}
PROBLEMS = {
    "missing": (container({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, ENDED),
                "ModelNotLoaded", "/models/a.gguf: no such file; check spec.model.uri"),
    "image": (container({"waiting": {"reason": "ImagePullBackOff", "message": "not found in registry"}}),
              "ImagePullFailed", "not found in registry"),
    "memory": (container({"waiting": {"reason": "CrashLoopBackOff"}},
                         {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "OutOfMemory", "limits.memory"),
    "crash": (container({"terminated": {"exitCode": 139, "reason": "Error"}}), "RuntimeCrashed", "exit code 139"),
    "unschedulable": ({"phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu."}]}, "Unschedulable", "1 Insufficient cpu"),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_problem(world, operator, kind):
    status, reason, words = PROBLEMS[kind]
    world.create("a")
    made(world)
    world.pod("a-1", "a", status)
    wait(lambda: world.condition("a", "Ready").get("reason") == reason, lambda: f"{reason}: {world.condition('a', 'Ready')}")
    for condition in ("Ready", "Degraded"):
        assert words in world.condition("a", condition)["message"]
    wait(lambda: any(e[:2] == ("Warning", reason) and words in e[2] for e in world.events("a")),
         lambda: f"events: {world.events('a')}")
    world.delete("pods", "a-1", grace=0)
    wait(lambda: world.condition("a", "Degraded").get("status") == "False", "Degraded=False after the pod is gone")


def test_what_the_api_server_refuses_is_in_the_status(world, operator):
    # A toleration of a shape that the CRD lets through and pod validation does not.
    world.create("a", hardware=[{"name": "cpu", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                                 "tolerations": [{"operator": "Exists", "value": "x", "key": "k"}]}])
    wait(lambda: world.condition("a", "Degraded").get("reason") == "ApplyRefused", lambda: world.endpoint("a"))
    assert "tolerations" in world.condition("a", "Degraded")["message"]
    world.patch("inferenceendpoints", "a", {"spec": {"hardware": [{"name": "cpu", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}})
    wait(lambda: world.condition("a", "Degraded").get("status") == "False", lambda: world.endpoint("a"))


def test_deletion_waits_for_the_pods_and_leaves_nothing_behind(world, operator):
    world.create("a")
    made(world)
    world.pod("a-1", "a", LOADING)
    world.delete("inferenceendpoints", "a")
    wait(lambda: world.get("deployments", "a-cpu") is None, "the Deployment to go first")
    assert world.endpoint("a")["metadata"]["deletionTimestamp"]
    assert world.get("services", "a"), "the Service stays while pods drain"
    world.delete("pods", "a-1", grace=0)
    wait(lambda: not world.endpoint("a"), "the endpoint to go")
    assert world.children("a") == {}


def test_external_mode_follows_the_scale_subresource(world, operator):
    world.create("a", scaling={"mode": "external", "minReplicas": 2, "maxReplicas": 4})
    made(world)
    # An autoscaler reads before it writes; the API server answers only where spec.replicas is there.
    path = world.path("inferenceendpoints", "a") + "/scale"
    assert world.api.get(path)["spec"]["replicas"] == 2
    assert world.get("deployments", "a-cpu")["spec"]["replicas"] == 2
    world.patch("inferenceendpoints", "a", {"spec": {"replicas": 3}}, "scale")
    wait(lambda: world.get("deployments", "a-cpu")["spec"]["replicas"] == 3, "3 replicas")
    world.deployment_status("a-cpu", 3, 2)
    scale = wait(lambda: (lambda s: s if s["status"]["replicas"] == 3 else None)(
        world.api.get(path)), "the scale's status")
    assert scale["spec"]["replicas"] == 3  # the operator has left it alone
    assert scale["status"]["selector"] == "app.kubernetes.io/name=quern-serve,serving.quern.dev/endpoint=a"
    wait(lambda: world.condition("a", "ScalingActive").get("reason") == "External", "ScalingActive=External")
    world.patch("inferenceendpoints", "a", {"spec": {"replicas": 9}}, "scale")
    wait(lambda: world.get("deployments", "a-cpu")["spec"]["replicas"] == 4, "no more than maxReplicas")
    wait(lambda: "spec.replicas is 9" in world.condition("a", "ScalingActive").get("message", ""), "what limits it")

    # Back to builtin by changing the mode alone, as an apply does that never heard of spec.replicas.
    world.patch("inferenceendpoints", "a", {"spec": {"scaling": {"mode": "builtin", "maxReplicas": 2}}})
    wait(lambda: "replicas" not in world.endpoint("a")["spec"], "spec.replicas to be taken out")
    wait(lambda: world.get("deployments", "a-cpu")["spec"]["replicas"] == 2, "minReplicas")
    with pytest.raises(kube_api.ApiError, match="spec.replicas"):  # and with builtin nobody writes it again
        world.patch("inferenceendpoints", "a", {"spec": {"replicas": 3}}, "scale")


class FakeRuntime:
    """/metrics of a runtime under a constant load, at an address of its own."""

    def __init__(self, address: str, prompt_tokens_per_second: float):
        self.rate, self.started = prompt_tokens_per_second, time.monotonic()
        runtime = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                seconds = time.monotonic() - runtime.started
                tokens, requests = seconds * runtime.rate, 0
                page = "\n".join(f'quern_{name}{{model="a"}} {value}' for name, value in {
                    "admitted_requests_total": requests, "admitted_prompt_tokens_total": tokens,
                    "prompt_tokens_total": tokens, "generation_tokens_total": 0, "requests_running": 1,
                    "requests_waiting": 0}.items()) + "\n"
                self.send_response(200)
                self.end_headers()
                self.wfile.write(page.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((address, 9090), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def ready_pod(address: str) -> dict:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True", "lastTransitionTime": now}],
            "containerStatuses": [{"name": "quern-serve", "image": IMAGE, "imageID": "", "ready": True, "started": True,
                                   "restartCount": 0, "state": {"running": {"startedAt": now}}}]}


SCALING = {"maxReplicas": 4, "targetTokensPerSecond": 100, "targetUtilization": "0.5", "stableWindow": "10s",
           "panicWindow": "5s", "scaleDownDelay": "4s"}


def test_tokens_scale_up_and_down_and_missing_metrics_hold(world, start):
    operator = start("--namespace", world.namespace)
    runtime = FakeRuntime("127.0.1.1", 80)
    try:
        world.create("a", scaling=SCALING)
        serving(world)
        world.pod("a-1", "a", ready_pod("127.0.1.1"))
        wait(lambda: world.get("deployments", "a-cpu")["spec"]["replicas"] >= 2, lambda: world.endpoint("a"))
        status = wait(lambda: (lambda s: s if s.get("scaling", {}).get("history") else None)(world.endpoint("a")["status"]),
                      "a history")
        assert status["scaling"]["history"][0]["from"] == 1
        assert "tokens/s" in status["scaling"]["history"][0]["message"]
        assert world.condition("a", "ScalingActive")["status"] == "True"
        wait(lambda: any(e[1] == "ScaledUp" and "tokens/s" in e[2] for e in world.events("a")), lambda: world.events("a"))
        # Killed and started again, it goes on from the decision in the status.
        replicas = world.get("deployments", "a-cpu")["spec"]["replicas"]
        operator.kill()
        operator = start("--namespace", world.namespace)
        for counted in ("quern_operator_scrapes_total", "quern_operator_reconcile_total"):
            wait(lambda counted=counted: re.search(counted + r'\{result="success"\} [1-9]', metrics(operator)),
                 f"{counted} of the operator that was started again")
        assert world.get("deployments", "a-cpu")["spec"]["replicas"] >= replicas
        # No tokens any more: down to one again.
        runtime.started, runtime.rate = time.monotonic(), 0
        wait(lambda: world.get("deployments", "a-cpu")["spec"]["replicas"] == 1, lambda: world.endpoint("a"), 60)
    finally:
        runtime.stop()
    wait(lambda: world.condition("a", "ScalingActive").get("reason") == "MetricsMissing", lambda: world.endpoint("a"))
    assert "pod a-1" in world.condition("a", "ScalingActive")["message"]


def metrics(operator) -> str:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{operator.metrics_port}/metrics", timeout=5).read().decode()
    except OSError:
        return ""
