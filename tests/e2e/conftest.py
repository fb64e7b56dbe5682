"""One cluster and one installed chart for all tests of the folder.

The cluster is the tests' own, made anew and removed at the end; one that hack/demo or hack/cluster has up is not touched.
With QUERN_E2E_KEEP=1 it is kept, to look at and to run the tests again sooner; to end it then:
  QUERN_STATE=~/.cache/quern/cluster-e2e hack/cluster down --wipe
"""

import http.client
import json
import os
import signal
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "hack" / "lib"))
from quern_dev import kubectl as kube  # noqa: E402
from quern_dev import paths, stack  # noqa: E402
from quern_dev.cluster.lifecycle import Cluster  # noqa: E402

NAMESPACE = "default"
CUDA_IMAGE = "localhost/quern/serve-cuda:of-the-tests"  # there is none: on simulated nodes no image is pulled
OWNED = ("deployments", "replicasets", "pods", "services", "serviceaccounts", "poddisruptionbudgets", "networkpolicies")


class World:
    """What the tests use: the cluster, kubectl on it, and ways to its services and to Prometheus."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.kubectl = stack.local_kubectl(cluster)
        self.operator_logs = []  # of the operators that were killed

    # ---- endpoints

    def endpoint(self, name):
        return self.kubectl.get("inferenceendpoint", name, NAMESPACE)

    def apply_endpoint(self, name, **spec):
        """Applies examples/smollm2.yaml under another name, with parts of its spec replaced."""
        manifest = yaml.safe_load((REPO / "examples" / "smollm2.yaml").read_text())
        manifest["metadata"] = {"name": name, "namespace": NAMESPACE}
        for key, value in spec.items():
            manifest["spec"][key] = {**manifest["spec"].get(key, {}), **value} if isinstance(value, dict) else value
        self.kubectl.apply(manifest)
        return manifest

    def wait_ready(self, name, seconds=120):
        def explain():
            ready = kube.condition(self.endpoint(name), "Ready")
            return f"endpoint {name} to be Ready; it says {ready.get('reason')}: {ready.get('message')}\n{self.pods_text(name)}"
        kube.wait(lambda: kube.is_ready(self.endpoint(name)), seconds, explain)
        return self.endpoint(name)

    def pods_text(self, name):
        return self.kubectl.run("-n", NAMESPACE, "get", "pods", "-o", "wide", "-l", f"serving.quern.dev/endpoint={name}")

    def owned(self, name):
        """Everything that carries the endpoint's label, by kind/name."""
        found = self.kubectl.list(",".join(OWNED), NAMESPACE, f"serving.quern.dev/endpoint={name}")
        return sorted(f"{one['kind']}/{one['metadata']['name']}" for one in found)

    def delete(self, name):
        self.kubectl.run("-n", NAMESPACE, "delete", "inferenceendpoint", name, "--ignore-not-found", "--wait=true",
                         "--timeout=90s", timeout=100)

    def events(self, name):
        """(type, reason, message) of the events about the endpoint as it is now, oldest first."""
        uid = self.endpoint(name)["metadata"]["uid"]  # earlier ones of the name have left events, too
        listed = self.kubectl.list("events", NAMESPACE, fields=f"involvedObject.uid={uid}")
        return [(e["type"], e["reason"], e.get("message", "")) for e in listed]

    def operator_pods(self):
        return [p for p in self.kubectl.list("pods", stack.NAMESPACE, "app.kubernetes.io/name=quern-operator")
                if not p["metadata"].get("deletionTimestamp")]

    def sigkill_operator(self):
        """SIGKILL to the operator's process itself; nothing of Kubernetes' own ways of ending a pod, which ask first."""
        (pod,) = [p for p in self.operator_pods() if p["status"].get("phase") == "Running"]
        uid = pod["metadata"]["uid"]
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "comm").read_text().strip() == "quern-operator" \
                        and any(form in (entry / "cgroup").read_text() for form in (uid, uid.replace("-", "_"))):
                    found.append(int(entry.name))
            except OSError:  # ended meanwhile
                continue
        assert len(found) == 1, f"processes of pod {uid}: {found}"
        os.kill(found[0], signal.SIGKILL)
        return pod["metadata"]["name"]

    def operator_log(self, *options):
        """All that the operator has said; with --previous, the container before."""
        return self.kubectl.run("-n", stack.NAMESPACE, "logs", "deployment/quern-operator", "--tail=-1", *options)

    def operator_restarts(self, name):
        """(restarts, how the last one ended) of an operator pod's container."""
        status = self.kubectl.get("pod", name, stack.NAMESPACE)["status"]["containerStatuses"][0]
        return status["restartCount"], status.get("lastState", {}).get("terminated", {}).get("exitCode")

    # ---- ways in

    @contextmanager
    def through_service(self, name):
        """The base URL of the endpoint's API: a loopback port that leads, through kube-proxy, to its Service by name."""
        host = urllib.parse.urlsplit(self.endpoint(name)["status"]["url"]).hostname
        forward, port = self.cluster.forward(f"{host}.:80", 0)
        url = f"http://127.0.0.1:{port}/v1"
        try:
            # Ready is what the kubelet says of the pods; kube-proxy hears of them a moment later.
            kube.wait(lambda: answers(f"{url}/models"), 30, lambda: (
                f"an answer of {name} through its Service. The forward says:\n{self.cluster.registry.log_tail(forward)}"))
            yield url
        finally:
            self.cluster.registry.stop([forward], 5)

    @contextmanager
    def client(self, name):
        with self.through_service(name) as url, openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=90) as c:
            yield c

    def prometheus(self, query):
        """The samples of an instant query: [(labels, value)]."""
        url = f"http://127.0.0.1:{self.cluster.layout.port('prometheus')}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(url, timeout=10) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        result = answer["data"]["result"]
        if answer["data"]["resultType"] == "scalar":
            return [({}, float(result[1]))]
        return [(one["metric"], float(one["value"][1])) for one in result]


def answers(url):
    """What is said there, once a connection leads to it. An error that is an answer is the test's, and raised."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        pytest.fail(f"{url}: {error.code} {error.read()[:500]}")
    except (OSError, http.client.HTTPException):
        return None


def _diagnose(world):
    """What a person would look at first, into the test's output."""
    for arguments in (["get", "pods", "-A", "-o", "wide"], ["get", "ie", "-A", "-o", "yaml"],
                      ["-n", stack.NAMESPACE, "logs", "deployment/quern-operator", "--tail=60"],
                      ["get", "events", "-A", "--sort-by=.lastTimestamp"]):
        try:
            print(f"$ kubectl {' '.join(arguments)}\n{world.kubectl.run(*arguments)[-12000:]}")
        except kube.CommandError as error:
            print(f"$ kubectl {' '.join(arguments)}: {error}")


@pytest.fixture(scope="session")
def world():
    if os.geteuid() != 0:
        pytest.fail("the local cluster needs root")
    cluster = Cluster(paths.cache_dir() / "cluster-e2e")
    keep = os.environ.get("QUERN_E2E_KEEP") == "1"
    if not keep:
        cluster.down(wipe=True)
    try:
        cluster.up()
        world = World(cluster)
        images = stack.make_images(cluster, Path(os.environ.get("QUERN_BIN", REPO / "build" / "release" / "bin")))
        images["image"]["serveCuda"] = stack.image_values(CUDA_IMAGE)
        stack.install_chart(world.kubectl, {**stack.local_values(), **images})
        yield world
    finally:
        if not keep:
            cluster.down(wipe=True)


@pytest.fixture(autouse=True)
def explain_failures(request):
    yield
    report = getattr(request.node, "report_call", None)
    if report is not None and report.failed and "world" in request.fixturenames:
        _diagnose(request.getfixturevalue("world"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.report_call = outcome.get_result()
