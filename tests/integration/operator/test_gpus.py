"""Variants with GPUs: what the API server refuses of them, and what the operator makes. Nothing is scheduled here: tests/e2e does that."""

import time

import pytest

from conftest import IMAGE, wait
from quern_dev import kube_api

GPU = "nvidia.com/gpu"


def hardware(limits=None, requests=None, **fields):
    return {"hardware": [{"name": "x", "resources": {"limits": {"cpu": "1", "memory": "4Gi", **(limits or {})}, "requests": requests or {}},
                          **fields}]}


@pytest.mark.parametrize("spec, words", [
    (hardware({GPU: "0"}), "resources.limits: nvidia.com/gpu must be a whole number from 1 to 64"),
    (hardware({GPU: "1.5"}), "resources.limits: nvidia.com/gpu must be a whole number from 1 to 64"),
    (hardware({GPU: 65}, tensorParallel=64), "resources.limits: nvidia.com/gpu must be a whole number from 1 to 64"),
    (hardware({GPU: 2}, {GPU: 1}, tensorParallel=2), "resources.requests: nvidia.com/gpu must equal resources.limits"),
    (hardware({}, {GPU: 1}), "resources.requests: nvidia.com/gpu must equal resources.limits"),
    (hardware(sharedMemory="1Gi"), "sharedMemory: is only for variants with GPUs"),
    (hardware({GPU: 1}, sharedMemory="4Gi"), "sharedMemory: must be below resources.limits.memory"),
    (hardware({GPU: 1, "memory": "1Gi"}), "sharedMemory: must be below resources.limits.memory"),
    ({"runtime": {"runtimeClassName": "Nvidia_1"}}, "spec.runtime.runtimeClassName"),
])
def test_wrong_hardware_is_refused_by_field(world, spec, words):
    with pytest.raises(kube_api.ApiError) as refused:
        world.create("a", **spec)
    assert refused.value.status == 422
    assert words in str(refused.value)


@pytest.mark.parametrize("spec", [
    {**hardware({GPU: 64, "memory": "1.5Gi"}, {GPU: "64"}, tensorParallel=64), "runtime": {"runtimeClassName": ""}},
    {**hardware({GPU: "1"}, sharedMemory="4095Mi"), "runtime": {"runtimeClassName": "nvidia-cdi"}},
])
def test_the_ends_of_the_ranges_are_good(world, spec):
    world.create("a", **spec)


def deployment(world):
    return wait(lambda: world.get("deployments", "a-x"), lambda: f"the Deployment; the endpoint says {world.endpoint('a').get('status')}")


def test_gpus_without_an_image_for_them_are_refused_until_there_is_one(world, start):
    start("--namespace", world.namespace)
    world.create("a", **hardware({GPU: 2}, tensorParallel=2))
    refused = wait(lambda: (lambda c: c if c.get("reason") == "ImageWithoutCuda" else None)(world.condition("a", "Degraded")),
                   lambda: f"ImageWithoutCuda: {world.endpoint('a').get('status')}")
    assert "--serve-image-cuda" in refused["message"]
    assert world.condition("a", "Ready")["reason"] == "ImageWithoutCuda"
    assert not world.children("a")
    world.patch("inferenceendpoints", "a", {"spec": {"runtime": {"image": IMAGE}}})  # the operator's own, for CPUs
    wait(lambda: "is the operator's image for CPUs" in world.condition("a", "Degraded")["message"], lambda: world.condition("a", "Degraded"))
    world.patch("inferenceendpoints", "a", {"spec": {"runtime": {"image": "localhost/mine:1"}}})
    assert deployment(world)["spec"]["template"]["spec"]["containers"][0]["image"] == "localhost/mine:1"


@pytest.mark.parametrize("arguments, runtime_class", [((), "nvidia"), (("--gpu-runtime-class", "none"), None)])
def test_a_deployment_with_gpus_is_kept_as_it_is_made(world, start, arguments, runtime_class):
    start("--namespace", world.namespace, "--serve-image-cuda", "localhost/quern/serve-cuda:test", *arguments)
    world.create("a", **hardware({GPU: 2}, tensorParallel=2, sharedMemory="2Gi"))
    made = deployment(world)
    pod = made["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "localhost/quern/serve-cuda:test"
    assert pod["containers"][0]["resources"]["limits"][GPU] == "2"
    assert pod.get("runtimeClassName") == runtime_class
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}} in pod["volumes"]
    # What the API server fills in is no difference to the operator: it does not apply again and again.
    wait(lambda: world.condition("a", "Ready").get("reason") == "Starting", lambda: world.endpoint("a"))
    time.sleep(1)
    again = world.get("deployments", "a-x")
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
