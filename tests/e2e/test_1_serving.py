"""The whole path: apply, Ready, chat, load, more replicas because of tokens, idle, fewer, delete, nothing left.

The tests of this file are steps of one story, in order; each needs the one before.
"""

import json
import re

import openai
import pytest
from conftest import NAMESPACE, REPO, World

from quern_dev import kubectl as kube
from quern_dev.cluster.layout import MODEL_ROOT
from quern_dev.load import Load

NAME = "story"
# Short windows, so that the story takes minutes; the target is below what one replica serves on half a core.
SCALING = {"minReplicas": 1, "maxReplicas": 3, "targetTokensPerSecond": "12", "targetUtilization": "0.8",
           "stableWindow": "12s", "panicWindow": "6s", "scaleDownDelay": "10s"}


@pytest.fixture(scope="module", autouse=True)
def the_story_ends(world):
    yield
    world.delete(NAME)


def replicas(world: World) -> int:
    return (world.endpoint(NAME).get("status") or {}).get("replicas", 0)


def scaling_status(world: World) -> dict:
    return (world.endpoint(NAME).get("status") or {}).get("scaling") or {}


def test_an_applied_endpoint_becomes_ready(world):
    world.apply_endpoint(NAME, scaling=SCALING)
    endpoint = world.wait_ready(NAME)
    status = endpoint["status"]
    assert status["observedGeneration"] == endpoint["metadata"]["generation"]
    assert status["url"] == f"http://{NAME}.{NAMESPACE}.svc.cluster.local"
    assert status["replicas"] == 1 and status["readyReplicas"] == 1
    assert kube.condition(endpoint, "Available")["status"] == "True"
    assert {kind.split("/")[0] for kind in world.owned(NAME)} >= {"Deployment", "Service", "ServiceAccount", "Pod"}


def test_each_replica_is_limited_to_half_a_core_and_cannot_write_or_become_root(world):
    pod = world.kubectl.list("pods", NAMESPACE, f"serving.quern.dev/endpoint={NAME}")[0]["spec"]
    container = pod["containers"][0]
    assert container["resources"]["limits"]["cpu"] == "500m"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_the_openai_client_chats_through_the_service(world):
    with world.client(NAME) as client:
        assert [model.id for model in client.models.list()] == [NAME]
        answer = client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "What is the capital of France?"}], max_tokens=24, temperature=0)
        assert "Paris" in answer.choices[0].message.content
        assert answer.usage.completion_tokens > 0


def test_a_streamed_answer_comes_in_pieces_and_is_the_same_as_the_plain_one(world):
    request = dict(model=NAME, messages=[{"role": "user", "content": "Count from one to five."}], max_tokens=24, temperature=0)
    with world.client(NAME) as client:
        plain = client.chat.completions.create(**request).choices[0].message.content
        chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
        pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
        assert len(pieces) > 3
        assert "".join(pieces) == plain
        assert chunks[-1].usage.completion_tokens > 0


def test_a_wrong_request_gets_openai_s_error(world):
    with world.client(NAME) as client:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "x"}], max_tokens=-1)
        assert "max_tokens" in str(refused.value)


def test_load_brings_more_replicas_because_of_tokens(world):
    with world.through_service(NAME) as url, Load(url, NAME, clients=4, max_tokens=48, limit_seconds=180) as load:
        kube.wait(lambda: replicas(world) >= 2, 90,
                  lambda: f"2 replicas; the status says {json.dumps(scaling_status(world))}; load {load.totals}")
        kube.wait(lambda: world.endpoint(NAME)["status"].get("readyReplicas", 0) >= 2, 60, "2 ready replicas")
        kube.wait(lambda: load.totals.requests >= 4, 90, lambda: f"four answers under load: {load.totals}")
        assert load.totals.errors == 0, load.totals.last_error
    step = next(one for one in reversed(scaling_status(world)["history"]) if one["to"] >= 2)
    assert step["from"] == 1
    assert step["rule"] in ("ScaleUp", "Panic"), step  # not a limit, nor a guess without metrics
    # The demand that it names is more than one replica is planned for.
    demand = float(re.search(r"demand ([\d.]+) tokens/s", step["message"]).group(1))
    assert demand > float(SCALING["targetTokensPerSecond"]) * float(SCALING["targetUtilization"]), step
    inputs = scaling_status(world)["lastDecision"]["inputs"]
    assert float(inputs["tokensPerSecondPerReplica"]) > 0
    kube.wait(lambda: any("replica" in message and "token" in message for _, _, message in world.events(NAME)), 30,
              lambda: f"an event that says why among {world.events(NAME)}")


def test_idle_brings_it_back_to_one(world):
    kube.wait(lambda: replicas(world) == 1, 120, lambda: f"1 replica; the status says {json.dumps(scaling_status(world))}")
    kube.wait(lambda: len(world.kubectl.list("pods", NAMESPACE, f"serving.quern.dev/endpoint={NAME}")) == 1, 60,
              lambda: f"one pod:\n{world.pods_text(NAME)}")
    with world.client(NAME) as client:
        assert client.completions.create(model=NAME, prompt="Once upon a time", max_tokens=4, temperature=0).choices[0].text


def test_kubectl_shows_its_columns(world):
    out = world.kubectl.run("-n", NAMESPACE, "get", "ie", NAME)
    header, row = out.splitlines()[:2]
    for column in ("NAME", "MODEL", "READY", "REPLICAS", "TOKENS/S", "P95-TTFT", "AGE"):
        assert column in header
    assert "True" in row and "file:///models/SmolLM2" in row


def test_a_deleted_child_comes_back_and_a_hand_edited_one_is_put_right(world):
    before = world.kubectl.get("service", NAME, NAMESPACE)["metadata"]["uid"]
    world.kubectl.run("-n", NAMESPACE, "delete", "service", NAME)
    again = kube.wait(lambda: world.kubectl.get("service", NAME, NAMESPACE), 30, "the Service to come back")
    assert again["metadata"]["uid"] != before
    deployment = world.kubectl.list("deployments", NAMESPACE, f"serving.quern.dev/endpoint={NAME}")[0]["metadata"]["name"]
    world.kubectl.run("-n", NAMESPACE, "scale", f"deployment/{deployment}", "--replicas=3")
    kube.wait(lambda: world.kubectl.get("deployment", deployment, NAMESPACE)["spec"]["replicas"] == 1, 30,
              "the Deployment's replicas to be put right")


def test_deleting_it_leaves_nothing_behind(world):
    world.delete(NAME)
    assert world.endpoint(NAME) is None
    kube.wait(lambda: not world.owned(NAME), 90, lambda: f"these to go: {world.owned(NAME)}")


def test_the_example_manifests_are_accepted(world):
    for path in sorted((REPO / "examples").glob("*.yaml")):
        assert "created (server dry run)" in world.kubectl.run("apply", "--dry-run=server", "-f", path)


def test_the_gemma_example_serves(world):
    world.kubectl.run("-n", NAMESPACE, "apply", "-f", REPO / "examples" / "gemma.yaml")
    try:
        world.wait_ready("gemma")
        with world.client("gemma") as client:
            assert [model.id for model in client.models.list()] == ["gemma-3-270m"]
            answer = client.completions.create(model="gemma-3-270m", prompt="The capital of France is the city of", max_tokens=4, temperature=0)
            assert "Paris" in answer.choices[0].text
    finally:
        world.delete("gemma")


def test_a_model_on_a_persistent_volume_claim_serves(world):
    size = {"storage": "1Gi"}
    world.kubectl.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "weights"},
         "spec": {"capacity": size, "accessModes": ["ReadOnlyMany"], "storageClassName": "by-hand",
                  "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": MODEL_ROOT}}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "weights"},
         "spec": {"accessModes": ["ReadOnlyMany"], "storageClassName": "by-hand", "resources": {"requests": size}}})
    try:
        world.apply_endpoint("claimed", model={"uri": "pvc://weights/SmolLM2-135M-Instruct.Q4_1.gguf"})
        world.wait_ready("claimed")
        with world.client("claimed") as client:
            assert client.completions.create(model="claimed", prompt="Once", max_tokens=4,
                                             extra_body={"ignore_eos": True}).usage.completion_tokens == 4
    finally:
        world.delete("claimed")
        world.kubectl.run("-n", NAMESPACE, "delete", "pvc/weights", "pv/weights", "--timeout=60s", timeout=70)
