"""Endpoints with GPUs: their pods go through the real API server and scheduler to simulated nodes, where kwok plays them Ready.

No container of theirs runs, and no GPU is there.
"""

import pytest
from conftest import CUDA_IMAGE, NAMESPACE

from quern_dev import kubectl as kube
from quern_dev.cluster import commands

PRODUCT = "NVIDIA-H100-80GB-HBM3"
GPUS = 8  # of each of two nodes


@pytest.fixture(scope="module", autouse=True)
def gpu_nodes(world):
    commands.gpu_nodes(world.cluster, 2, GPUS, PRODUCT, 81559)
    yield
    commands.gpu_nodes(world.cluster, 0)


@pytest.fixture
def endpoint(world, request):
    """A name for an endpoint of this test, deleted after it."""
    name = request.node.name.replace("test_", "").replace("_", "-")[:30].strip("-")
    yield name
    world.delete(name)
    kube.wait(lambda: not world.owned(name), 60, lambda: f"these to go: {world.owned(name)}")


def apply(world, name, gpus, replicas=1, **spec):
    variant = {"name": "h100", "tensorParallel": gpus, "sharedMemory": "4Gi", "nodeSelector": {"nvidia.com/gpu.product": PRODUCT},
               "resources": {"requests": {"cpu": "8", "memory": "64Gi"},
                             "limits": {"cpu": "16", "memory": "128Gi", "nvidia.com/gpu": gpus}},
               "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}, {"key": "nvidia.com/gpu", "operator": "Exists"}]}
    return world.apply_endpoint(name, hardware=[variant], scaling={"minReplicas": replicas, "maxReplicas": replicas}, **spec)


def pods_of(world, name):
    return [pod for pod in world.kubectl.list("pods", NAMESPACE, f"serving.quern.dev/endpoint={name}")
            if not pod["metadata"].get("deletionTimestamp")]


def test_replicas_are_bound_to_nodes_that_have_their_gpus(world, endpoint):
    apply(world, endpoint, GPUS, replicas=2)
    status = world.wait_ready(endpoint, 60)["status"]
    assert status["readyReplicas"] == 2 and status["variants"] == [{"name": "h100", "replicas": 2, "readyReplicas": 2}]
    pods = pods_of(world, endpoint)
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["gpu-0", "gpu-1"]
    for pod in pods:
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert container["image"] == CUDA_IMAGE
        assert container["resources"]["limits"]["nvidia.com/gpu"] == container["resources"]["requests"]["nvidia.com/gpu"] == str(GPUS)
        assert spec["runtimeClassName"] == "nvidia"
        assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}} in spec["volumes"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
        assert spec["nodeSelector"] == {"nvidia.com/gpu.product": PRODUCT}


def test_one_too_large_stays_pending_and_says_why_until_it_is_mended(world, endpoint):
    apply(world, endpoint, 2 * GPUS)
    kube.wait(lambda: kube.condition(world.endpoint(endpoint), "Degraded").get("reason") == "Unschedulable", 60,
              lambda: f"Unschedulable; it says {world.endpoint(endpoint).get('status')}")
    (pod,) = pods_of(world, endpoint)
    assert pod["status"]["phase"] == "Pending" and not pod["spec"].get("nodeName")
    for kind, status in (("Degraded", "True"), ("Ready", "False")):
        condition = kube.condition(world.endpoint(endpoint), kind)
        assert condition["status"] == status and condition["reason"] == "Unschedulable"
        # The scheduler's own words, of both nodes, and whose pod it is.
        assert pod["metadata"]["name"] in condition["message"] and "2 Insufficient nvidia.com/gpu" in condition["message"], condition
    kube.wait(lambda: any(kind == "Warning" and reason == "Unschedulable" for kind, reason, _ in world.events(endpoint)), 30,
              lambda: f"a warning among {world.events(endpoint)}")
    apply(world, endpoint, GPUS)
    world.wait_ready(endpoint, 60)
    kube.wait(lambda: kube.condition(world.endpoint(endpoint), "Degraded")["status"] == "False", 30,
              lambda: f"no problem; it says {kube.condition(world.endpoint(endpoint), 'Degraded')}")


def test_a_runtime_class_that_is_not_there_is_named(world, endpoint):
    apply(world, endpoint, 1, runtime={"runtimeClassName": "absent"})
    kube.wait(lambda: kube.condition(world.endpoint(endpoint), "Degraded").get("reason") == "PodsRefused", 60,
              lambda: f"PodsRefused; it says {world.endpoint(endpoint).get('status')}")
    assert "absent" in kube.condition(world.endpoint(endpoint), "Degraded")["message"]
    apply(world, endpoint, 1, runtime={"runtimeClassName": ""})
    world.wait_ready(endpoint, 60)
    (pod,) = pods_of(world, endpoint)
    assert "runtimeClassName" not in pod["spec"]
