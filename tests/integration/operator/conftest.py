"""A private API server with the CRD, and quern-operator as a process that tests start, stop and kill."""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPO / "hack" / "lib"))
from quern_dev import kube_api  # noqa: E402
from quern_dev.control_plane import ControlPlane  # noqa: E402

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/inferenceendpoints.serving.quern.dev"
_numbers = itertools.count()
IMAGE = "localhost/quern/serve:test"


def wait(condition, what, seconds=30):
    """The first true value of condition(); fails with `what` (a text, or a function that gives one) after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            pytest.fail(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.1)


class World:
    """One namespace, and what a test does in it."""

    def __init__(self, plane: ControlPlane, namespace: str):
        self.api = plane.client
        self.namespace = namespace
        self.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})

    def path(self, kind: str, name: str = "") -> str:
        group = {"inferenceendpoints": "/apis/serving.quern.dev/v1alpha1", "deployments": "/apis/apps/v1",
                 "networkpolicies": "/apis/networking.k8s.io/v1", "poddisruptionbudgets": "/apis/policy/v1",
                 "events": "/apis/events.k8s.io/v1"}.get(kind, "/api/v1")
        return f"{group}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def get(self, kind: str, name: str):
        """The object, or None."""
        try:
            return self.api.get(self.path(kind, name))
        except kube_api.ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str) -> list:
        return self.api.get(self.path(kind))["items"]

    def patch(self, kind: str, name: str, body: dict, subresource: str = ""):
        path = self.path(kind, name) + (f"/{subresource}" if subresource else "")
        return self.api.request("PATCH", path, body, "application/merge-patch+json")

    def delete(self, kind: str, name: str, grace: int | None = None):
        query = "" if grace is None else f"?gracePeriodSeconds={grace}"
        return self.api.request("DELETE", self.path(kind, name) + query)

    def create(self, name: str, **spec):
        spec.setdefault("model", {"uri": "file:///models/a.gguf"})
        return self.api.request("POST", self.path("inferenceendpoints"), {
            "apiVersion": "serving.quern.dev/v1alpha1", "kind": "InferenceEndpoint",
            "metadata": {"name": name}, "spec": spec})

    def endpoint(self, name: str) -> dict:
        return self.get("inferenceendpoints", name) or {}

    def condition(self, name: str, kind: str) -> dict:
        found = [c for c in self.endpoint(name).get("status", {}).get("conditions", []) if c["type"] == kind]
        return found[0] if found else {}

    def events(self, name: str) -> list:
        """(type, reason, note) of the endpoint's events."""
        return [(e["type"], e["reason"], e["note"]) for e in self.list("events") if e["regarding"]["name"] == name]

    CHILD_KINDS = ("serviceaccounts", "services", "networkpolicies", "poddisruptionbudgets", "deployments")

    def count_children(self) -> int:
        """All endpoints' objects, in as few calls as there are kinds: quick enough to see them being made."""
        return sum(owner["kind"] == "InferenceEndpoint" for kind in self.CHILD_KINDS for item in self.list(kind)
                   for owner in item["metadata"].get("ownerReferences", []))

    def children(self, name: str) -> dict:
        """The endpoint's objects as kind/name -> object."""
        out = {}
        for kind in self.CHILD_KINDS:
            for item in self.list(kind):
                owners = item["metadata"].get("ownerReferences", [])
                if any(owner["kind"] == "InferenceEndpoint" and owner["name"] == name for owner in owners):
                    out[f"{kind}/{item['metadata']['name']}"] = item
        return out

    def deployment_status(self, name: str, replicas: int, ready: int):
        """What the Deployment controller would write."""
        generation = self.get("deployments", name)["metadata"]["generation"]
        self.patch("deployments", name, {"status": {
            "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": ready, "availableReplicas": ready}}, "status")

    def pod(self, name: str, endpoint: str, status: dict, owned: bool = True, grace: int | None = None):
        """A pod of the endpoint as the kubelet would report it; not `owned`: one that only looks like it."""
        template = self.get("deployments", f"{endpoint}-cpu")["spec"]["template"]
        spec = {**template["spec"], "nodeName": "nowhere"}
        if grace is not None:
            spec["terminationGracePeriodSeconds"] = grace
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{endpoint}-cpu-5d4f8c7b9", "uid": "of-a-replica-set",
                 "controller": True}
        self.api.request("POST", self.path("pods"), {
            "metadata": {"name": name, "labels": template["metadata"]["labels"], "ownerReferences": [owner] if owned else []},
            "spec": spec})
        self.patch("pods", name, {"status": status}, "status")


class Relay:
    """A way to the API server on which the connections of the moment can fall silent, as when a firewall forgets them."""

    def __init__(self, kubeconfig: Path, directory: Path):
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._server = urllib.parse.urlsplit(cluster["server"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        cluster["server"] = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.kubeconfig = directory / "through-relay.kubeconfig"
        self.kubeconfig.write_text(json.dumps(config))
        self._sockets, self._silent = [], threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self):
        """Nothing passes any more on any connection that there is; new ones work."""
        self._silent.set()
        self._silent = threading.Event()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((self._server.hostname, self._server.port))
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink, self._silent), daemon=True).start()

    @staticmethod
    def _copy(source, sink, silent):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if silent.is_set():
                    return  # and leave both open
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        self._listener.close()
        for each in self._sockets:
            each.close()


class Operator:
    """A quern-operator process."""

    def __init__(self, program: Path, kubeconfig: Path, directory: Path, *arguments: str):
        self.metrics_port, self.health_port = kube_api.free_ports(2)
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "operator.log"
        self._file = self.log.open("ab")
        self.process = subprocess.Popen(
            [program, "--kubeconfig", kubeconfig, "--serve-image", IMAGE, "--lease-namespace", "default",
             "--metrics-address", f"127.0.0.1:{self.metrics_port}", "--health-address", f"127.0.0.1:{self.health_port}",
             "--allowed-model-volume", "hostPath:/var/lib/quern/models@/models", "--scrape-interval", "1s", *arguments],
            stdin=subprocess.DEVNULL, stdout=self._file, stderr=self._file)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(20)
        finally:
            self.close()

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self._file.close()


@pytest.fixture(scope="session")
def program() -> Path:
    return Path(os.environ["QUERN_BIN"]) / "quern-operator"


@pytest.fixture(scope="session")
def plane():
    with ControlPlane() as running:
        running.client.apply(CRD, yaml.safe_load((REPO / "crds" / "inferenceendpoints.yaml").read_text()))
        wait(lambda: any(c["type"] == "Established" and c["status"] == "True"
                         for c in running.client.get(CRD).get("status", {}).get("conditions") or []), "the CRD")
        yield running


@pytest.fixture
def world(plane, request):
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    return World(plane, f"{name}-{next(_numbers)}")


@pytest.fixture
def start(program, plane, tmp_path):
    """Starts an operator; all are ended after the test, and their logs shown if it failed."""
    started = []

    def run(*arguments, kubeconfig=None):
        started.append(Operator(program, kubeconfig or plane.kubeconfig, tmp_path / str(len(started)), *arguments))
        return started[-1]

    yield run
    for operator in started:
        operator.close()
        print(operator.text()[-6000:])


@pytest.fixture
def relay(plane, tmp_path):
    relay = Relay(plane.kubeconfig, tmp_path)
    yield relay
    relay.close()


@pytest.fixture
def operator(start, world):
    return start("--namespace", world.namespace)
