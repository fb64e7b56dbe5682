"""hack/demo as a person runs it, on the tests' cluster, after the chart has gone from it. Runs last: it stops the cluster."""

import os
import re
import subprocess

import pytest
import yaml
from conftest import NAMESPACE, REPO, answers

from quern_dev import kubectl as kube
from quern_dev import stack
from quern_dev.cluster import commands

PATIENCE = 420


def demo(world, *arguments, fails=False, **environment):
    """Runs hack/demo to its end, which is a good one unless it `fails`; what it printed."""
    done = subprocess.run([REPO / "hack" / "demo", *arguments], capture_output=True, text=True, timeout=PATIENCE,
                          stdin=subprocess.DEVNULL, check=False,
                          env={**os.environ, "QUERN_STATE": str(world.cluster.layout.root), **environment})
    print(done.stdout + done.stderr)
    assert done.returncode == (1 if fails else 0)
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def first(world):
    return demo(world)


def test_it_asks_loads_and_shows_the_decision(world, first):
    assert "wait until smollm2 is Ready" in first
    question, answer = re.search(r"you:   (.+)\n  smollm2: (.*?)\n\s+\(\d+ tokens in", first, re.S).groups()
    assert question.strip() and answer.strip()
    assert re.search(r"1 → [23] replicas  \[(ScaleUp|Panic)\]  .*demand [\d.]+ tokens/s", first)
    status = world.endpoint("smollm2")["status"]
    assert any(step["from"] == 1 and step["to"] >= 2 for step in status["scaling"]["history"])


def test_what_it_prints_at_the_end_works(world, first):
    url = re.search(r"API +(http://127\.0\.0\.1:\d+/v1)", first).group(1)
    said = kube.wait(lambda: answers(url + "/models"), 30, f"an answer at {url}")  # it gives replicas back meanwhile
    assert b"smollm2" in said.lower()
    kubeconfig = re.search(r"export KUBECONFIG=(\S+)", first).group(1)
    programs = re.search(r"export PATH=\$PATH:(\S+)", first).group(1)
    shown = subprocess.run(["kubectl", "get", "ie"], capture_output=True, text=True, check=True, timeout=30,
                           env={**os.environ, "KUBECONFIG": kubeconfig, "PATH": f"{os.environ['PATH']}:{programs}"})
    assert "smollm2" in shown.stdout


def test_run_again_it_takes_what_is_there(world, first):
    pods = {pod["metadata"]["uid"] for pod in world.operator_pods()}
    again = demo(world, "--no-load")
    assert "is up already" in again
    assert {pod["metadata"]["uid"] for pod in world.operator_pods()} == pods


@pytest.fixture
def named(world):
    """The options and the environment that make the demo take our cluster for somebody else's."""
    context = world.kubectl.run("config", "current-context").strip()
    return ("--context", context), {"KUBECONFIG": str(world.cluster.layout.kubeconfig)}


def test_images_that_a_node_lacks_are_named_with_the_way_to_load_them(world, first, named):
    options, environment = named
    commands.gpu_nodes(world.cluster, 1, 8, "NVIDIA-H100")
    try:
        said = demo(world, *options, fails=True, **environment)
    finally:
        commands.gpu_nodes(world.cluster, 0, 8, "NVIDIA-H100")
    assert "gpu-0" in said and "kind load image-archive" in said and "build/images/serve.tar" in said


def test_on_a_named_cluster_it_asks_and_takes_its_things_away(world, first, named, tmp_path):
    options, environment = named
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(stack.local_values()))
    said = demo(world, *options, "--values", str(values), "--no-load", "--port", "0", **environment)
    assert re.search(r"\(\d+ tokens in", said)
    world.apply_endpoint("theirs", model={"uri": "file:///models/not-there.gguf"})
    stays = demo(world, "--down", *options, fails=True, **environment)
    assert f"{NAMESPACE}/theirs" in stays  # which nobody could delete without the operator
    world.delete("theirs")
    demo(world, "--down", *options, **environment)
    assert world.endpoint("smollm2") is None
    assert not world.kubectl.list("deployments", stack.NAMESPACE)
    kube.wait(lambda: not world.owned("smollm2"), 90, lambda: f"these to go from {NAMESPACE}: {world.owned('smollm2')}")


def test_a_context_that_is_not_there_is_one_clear_error(world, first, named):
    said = demo(world, "--down", "--context", "nowhere", fails=True, **named[1])
    assert "nowhere" in said


def test_of_a_base_model_it_shows_the_continuation_and_how_to_stop_it(world, first):
    example = str(REPO / "examples" / "gemma.yaml")
    said = demo(world, "--example", example, "--no-load")
    assert re.search(r"\n  gemma: .*\(\d+ tokens in", said, re.S)
    assert 'model "gemma-3-270m"' in said and f"hack/demo --down --example {example}" in said


def test_an_example_that_is_not_there_is_said_at_once(world):
    done = subprocess.run([REPO / "hack" / "demo", "--example", "nowhere.yaml"], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 2 and "nowhere.yaml: no such file" in done.stderr


def test_down_stops_the_cluster(world, first):
    demo(world, "--down", "--example", str(REPO / "examples" / "gemma.yaml"))
    assert world.cluster.namespaces() is None
    assert "down already" in demo(world, "--down")
