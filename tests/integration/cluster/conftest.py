"""A local cluster of the tests' own, and an image with a few of this machine's programs to run in its pods."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPO / "hack" / "lib"))
from quern_dev import golang, images, oci  # noqa: E402
from quern_dev.cluster.lifecycle import Cluster  # noqa: E402

_ANSWER = b"""#!/bin/sh
printf 'HTTP/1.0 200 OK\\r\\n\\r\\n%s\\n' "$ANSWER"
"""
_PROGRAMS = ("sh", "sleep", "getent", "socat", "id", "ls", "curl")


def wait_for(condition, seconds, what):
    """Polls until `condition()` is true; fails the test, saying `what` it waited for, when the time is over."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what() if callable(what) else what}"
        time.sleep(0.2)
    return value


def listening_beyond_loopback():
    """The sockets of this machine's own network that accept connections from elsewhere, as (address, port) in the kernel's hex."""
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path("/proc/net", family).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            loopback = address.endswith("7F") if family == "tcp" else address == "00000000000000000000000001000000"
            if state == "0A" and not loopback:
                found.add((address, port))
    return found


class World:
    """The cluster under test, and kubectl on it."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.image = ""
        self.listening_before = set()

    def kubectl(self, *arguments, stdin=None, check=True):
        result = subprocess.run(
            [golang.program("kubernetes", "kubectl"), f"--kubeconfig={self.cluster.layout.kubeconfig}", *arguments],
            input=stdin, capture_output=True, text=True, check=False, timeout=90)
        assert not check or result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}"
        return result.stdout

    def apply(self, *objects):
        for one in objects:
            self.kubectl("apply", "-f", "-", stdin=json.dumps(one))

    def pods(self, app):
        return json.loads(self.kubectl("get", "pods", "-l", f"app={app}", "-o", "json"))["items"]

    def running(self, app):
        """The app's pods that run and are ready."""
        return [pod for pod in self.pods(app) if not pod["metadata"].get("deletionTimestamp") and any(
            c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))]

    def wait_running(self, app, count):
        return wait_for(lambda: len(found := self.running(app)) == count and found, 90,
                        lambda: f"{count} pods of {app}:\n{self.kubectl('describe', 'pods', '-l', f'app={app}')[-3000:]}")

    def deployment(self, app, command, replicas=1, annotations=None, **pod_spec):
        container = {
            "name": "main", "image": self.image, "imagePullPolicy": "Never", "command": command,
            "resources": {"limits": {"cpu": "100m", "memory": "32Mi"}},
            "securityContext": {"runAsNonRoot": True, "readOnlyRootFilesystem": True,
                                "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                                "seccompProfile": {"type": "RuntimeDefault"}}}
        container.update(pod_spec.pop("container", {}))
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": {
                "metadata": {"labels": {"app": app}, "annotations": annotations or {}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **pod_spec}}}}

    def service(self, app, port=8000):
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": app},
                "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": port}]}}

    def answering(self, app, text, **more):
        """A deployment whose pods answer every HTTP request with `text`."""
        return self.deployment(app, ["socat", "TCP-LISTEN:8000,fork,reuseaddr", "EXEC:answer"], **more, container={
            "env": [{"name": "ANSWER", "value": text}],
            "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1}})


def tools_image(path: Path) -> oci.Image:
    programs = [Path(shutil.which(name)).resolve() for name in _PROGRAMS]
    libraries = {}
    for program in programs:
        libraries.update(images._libraries(program))
    entries = [oci.Entry(f"usr/bin/{name}", 0o755, source=program) for name, program in zip(_PROGRAMS, programs)]
    entries.append(oci.Entry("usr/bin/answer", 0o755, data=_ANSWER))
    return oci.write(path, "localhost/quern/test-tools",
                     [images._base(), images._library_entries(libraries), entries],
                     {"User": "65532:65532", "Env": ["PATH=/usr/bin"]})


@pytest.fixture(scope="session")
def world():
    # Sockets lie inside, whose paths are limited to 107 bytes: a short name.
    with tempfile.TemporaryDirectory(prefix="quern-ct-") as directory:
        cluster = Cluster(Path(directory) / "state")
        made = World(cluster)
        made.listening_before = listening_beyond_loopback()
        try:
            cluster.up()
            image = tools_image(Path(directory) / "tools.tar")
            cluster.load([image.archive])
            made.image = image.reference
            yield made
        finally:
            cluster.down(wipe=True)
