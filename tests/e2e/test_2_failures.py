"""What goes wrong is said where a person looks: by the API server, in conditions, in events."""

import pytest
from conftest import NAMESPACE

from quern_dev import kubectl as kube
from quern_dev import stack


@pytest.fixture
def endpoint(world, request):
    """A name for an endpoint of this test, deleted after it."""
    name = request.node.name.replace("test_", "").replace("_", "-")[:30].strip("-")
    yield name
    world.delete(name)
    kube.wait(lambda: not world.owned(name), 90, lambda: f"these to go: {world.owned(name)}")


@pytest.mark.parametrize(("spec", "field"), [
    ({"scaling": {"minReplicas": 3, "maxReplicas": 2}}, "spec.scaling.minReplicas"),
    ({"scaling": {"targetTokensPerSecond": "0"}}, "spec.scaling.targetTokensPerSecond"),
    ({"scaling": {"stableWindow": "soon"}}, "spec.scaling.stableWindow"),
    ({"model": {"uri": "ftp://example/model.gguf"}}, "spec.model.uri"),
    ({"model": {"uri": "file:///models/../etc/passwd"}}, "spec.model.uri"),
])
def test_a_bad_manifest_is_refused_and_the_field_named(world, spec, field):
    with pytest.raises(kube.CommandError) as refused:
        world.apply_endpoint("bad", **spec)
    assert field in str(refused.value)
    assert world.endpoint("bad") is None


def test_an_unknown_field_is_refused_by_name(world):
    with pytest.raises(kube.CommandError) as refused:
        world.apply_endpoint("bad", scaling={"maximumReplicas": 3})
    assert "maximumReplicas" in str(refused.value)


def failed_to_load(world, name):
    kube.wait(lambda: "not-there.gguf" in kube.condition(world.endpoint(name), "Ready").get("message", ""), 90,
              lambda: f"the Ready condition to name the file; it says {kube.condition(world.endpoint(name), 'Ready')}")


def test_a_missing_model_file_shows_in_conditions_and_events(world, endpoint):
    world.apply_endpoint(endpoint, model={"uri": "file:///models/not-there.gguf"})
    failed_to_load(world, endpoint)
    ready = kube.condition(world.endpoint(endpoint), "Ready")
    assert ready["status"] == "False"
    assert ready["reason"]
    kube.wait(lambda: any(kind == "Warning" and "not-there.gguf" in message for kind, _, message in world.events(endpoint)), 30,
              lambda: f"a warning that names the file among {world.events(endpoint)}")


def test_a_spec_mended_after_a_failure_becomes_ready(world, endpoint):
    world.apply_endpoint(endpoint, model={"uri": "file:///models/not-there.gguf"})
    failed_to_load(world, endpoint)
    world.apply_endpoint(endpoint)
    world.wait_ready(endpoint)


def deployment_of(world, name):
    return world.kubectl.list("deployments", NAMESPACE, f"serving.quern.dev/endpoint={name}")[0]


def pods_of(world, name):
    return world.kubectl.list("pods", NAMESPACE, f"serving.quern.dev/endpoint={name}")


def ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def rollout_is_under_way(world, name, generation, old_pod):
    """The Deployment has changed, there is a new pod, and it does not serve yet or the old one has not gone yet."""
    if deployment_of(world, name)["metadata"]["generation"] <= generation:
        return False
    pods = pods_of(world, name)
    new = [pod for pod in pods if pod["metadata"]["uid"] != old_pod]
    return len(new) == 1 and (len(pods) > 1 or not ready(new[0]))


@pytest.mark.parametrize("moment", ["as the spec changes", "while the new pod starts"])
def test_the_operator_killed_in_mid_rollout_comes_to_the_same_result(world, endpoint, moment):
    world.apply_endpoint(endpoint)
    world.wait_ready(endpoint)
    generation = deployment_of(world, endpoint)["metadata"]["generation"]
    first = pods_of(world, endpoint)[0]["metadata"]["uid"]
    operator = world.operator_pods()[0]["metadata"]["name"]
    restarts, _ = world.operator_restarts(operator)

    world.apply_endpoint(endpoint, runtime={"maxSequences": 5})
    if moment == "while the new pod starts":
        kube.wait(lambda: rollout_is_under_way(world, endpoint, generation, first), 60,
                  lambda: f"the rollout to begin:\n{world.pods_text(endpoint)}", every=0.05)
    world.sigkill_operator()
    kube.wait(lambda: world.operator_restarts(operator)[0] > restarts, 60, "the operator's container to start again")
    assert world.operator_restarts(operator)[1] == 137  # SIGKILL, so nothing was put in order before the end
    world.operator_logs.append(world.operator_log("--previous"))

    def rolled_out():
        now, pods = deployment_of(world, endpoint), pods_of(world, endpoint)
        return (now["metadata"]["generation"] > generation
                and now["status"].get("updatedReplicas") == now["status"].get("readyReplicas") == 1
                and len(pods) == 1 and pods[0]["metadata"]["uid"] != first and kube.is_ready(world.endpoint(endpoint)))

    kube.wait(rolled_out, 120, lambda: f"the rollout to end:\n{world.pods_text(endpoint)}")
    arguments = deployment_of(world, endpoint)["spec"]["template"]["spec"]["containers"][0]["args"]
    joined = " ".join(arguments).replace("=", " ")
    assert "--max-sequences 5" in joined, arguments
    with world.client(endpoint) as client:
        assert client.completions.create(model=endpoint, prompt="Hello", max_tokens=4,
                                         extra_body={"ignore_eos": True}).usage.completion_tokens == 4
