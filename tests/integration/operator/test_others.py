"""What others do to an endpoint's objects, and what an endpoint may not ask for."""

from conftest import wait
from test_operator import LOADING, made, metrics, serving


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
