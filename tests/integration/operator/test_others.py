"""What others do to an endpoint's objects, and what an endpoint may not ask for."""

import json

from conftest import wait
from test_operator import LOADING, made, metrics, serving


def test_what_somebody_added_is_taken_out_where_it_changes_what_runs_or_who_may_reach_it(world, operator):
    world.create("a")
    serving(world)
    before = {k: c["spec"] for k, c in world.children("a").items() if "spec" in c}
    world.patch("services", "a", {"spec": {"selector": {"x": "y"}, "ports": [{"name": "http", "port": 8080}]}})
    world.patch("networkpolicies", "a", {"spec": {"podSelector": {"matchLabels": {"x": "y"}}, "egress": [{}]}})
    pod = before["deployments/a-cpu"]["template"]["spec"]
    serve = {**pod["containers"][0], "command": ["sh"], "env": [{"name": "A", "value": "b"}]}
    world.patch("deployments", "a-cpu", {"spec": {"template": {
        "metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}},
        "spec": {"hostNetwork": True, "priorityClassName": "theirs",
                 "containers": [serve, {"name": "other", "image": "other", "ports": [{"containerPort": 1, "hostPort": 1}]}],
                 "initContainers": [{"name": "first", "image": "other"}]}}}})

    def right():
        now = {k: c["spec"] for k, c in world.children("a").items() if "spec" in c}
        template = now["deployments/a-cpu"]["template"]
        # What is theirs to add stays.
        restarted = template["metadata"]["annotations"].pop("kubectl.kubernetes.io/restartedAt", None)
        priority = template["spec"].pop("priorityClassName", None)
        return now == before and (restarted, priority) == ("now", "theirs")
    wait(right, lambda: json.dumps(world.children("a")))
    wait(lambda: {note.split()[0] for _, reason, note in world.events("a") if reason == "DriftCorrected"} ==
         {"Service", "NetworkPolicy", "Deployment"}, lambda: f"events: {world.events('a')}")


def deployment_writes(operator) -> int:
    lines = [line for line in metrics(operator).splitlines()
             if line.startswith("quern_operator_api_requests_total{") and 'resource="deployments"' in line]
    return sum(int(line.split()[-1]) for line in lines if 'verb="apply"' in line or 'verb="patch"' in line)


def test_resources_written_another_way_are_no_difference(world, operator):
    world.create("a", hardware=[{"name": "cpu", "resources": {"requests": {"cpu": "0.1", "memory": "1000Ki"},
                                                              "limits": {"cpu": "1000m", "memory": "1024Mi"}}}])
    serving(world)
    assert world.get("deployments", "a-cpu")["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "1", "memory": "1Gi"}
    wait(lambda: world.condition("a", "ScalingActive"), "ScalingActive")
    before = deployment_writes(operator)
    assert before > 0
    for ready in (0, 1):  # two reconciles at least
        world.deployment_status("a-cpu", 1, ready)
        wait(lambda: world.endpoint("a")["status"].get("readyReplicas", 0) == ready, f"{ready} ready")
    assert deployment_writes(operator) == before


def test_a_pod_that_only_looks_like_the_endpoints_does_not_hold_its_deletion_up(world, operator):
    world.create("a")
    made(world)
    world.pod("b-1", "a", LOADING, owned=False, grace=1_000_000_000)
    world.delete("inferenceendpoints", "a")
    wait(lambda: not world.endpoint("a"), "the endpoint to go")
    assert world.children("a") == {}


def test_an_image_that_is_not_allowed_gets_nothing_and_is_told_so(world, start):
    start("--namespace", world.namespace, "--allowed-image", "registry.example/team/", "--allowed-image", "registry.example/b")
    world.create("a", runtime={"image": "registry.example/b-evil:1"})
    for kind in ("Ready", "Degraded"):
        condition = wait(lambda: world.condition("a", kind), lambda: world.endpoint("a"))
        assert condition["reason"] == "ImageNotAllowed"
        for words in ("spec.runtime.image: 'registry.example/b-evil:1'", "registry.example/team/, registry.example/b"):
            assert words in condition["message"]
    assert world.children("a") == {}
    world.patch("inferenceendpoints", "a", {"spec": {"runtime": {"image": "registry.example/b:1"}}})
    serving(world)
    world.patch("inferenceendpoints", "a", {"spec": {"runtime": {"image": "evil"}}})
    wait(lambda: world.condition("a", "Ready").get("reason") == "ImageNotAllowed", lambda: world.endpoint("a"))
    template = world.get("deployments", "a-cpu")["spec"]["template"]["spec"]
    assert template["containers"][0]["image"] == "registry.example/b:1"
    world.delete("inferenceendpoints", "a")
    wait(lambda: not world.endpoint("a"), "the endpoint to go")
    assert world.children("a") == {}
