"""The chart is installed, upgraded and uninstalled with helm on the cluster. Runs last: it takes the operator away."""

import yaml
from conftest import NAMESPACE, REPO

from quern_dev import kubectl as kube
from quern_dev import stack


def allowed(world, verb, resource, namespace=NAMESPACE):
    """What the API server says to a SelfSubjectAccessReview of the operator. `resource` may be TYPE/SUBRESOURCE."""
    account = f"system:serviceaccount:{stack.NAMESPACE}:quern-operator"
    kind, _, subresource = resource.partition("/")
    more = [f"--subresource={subresource}"] if subresource else []
    try:
        said = world.kubectl.run("-n", namespace, "auth", "can-i", verb, kind, *more, f"--as={account}").strip()
    except kube.CommandError as error:  # "no" is exit code 1, with nothing but warnings on stderr
        assert str(error).startswith(("exit code 1", "Warning:")), error
        return False
    assert said == "yes"
    return True


def test_the_operator_may_do_what_it_must_and_no_more(world):
    for verb, resource in (("watch", "inferenceendpoints.serving.quern.dev"), ("patch", "deployments.apps"), ("list", "pods"),
                           ("create", "events.events.k8s.io"), ("patch", "inferenceendpoints.serving.quern.dev/status")):
        assert allowed(world, verb, resource), f"may not {verb} {resource}"
    for verb, resource in (("get", "secrets"), ("delete", "pods"), ("create", "pods/exec"), ("create", "clusterroles"),
                           ("delete", "inferenceendpoints.serving.quern.dev"), ("get", "nodes"), ("update", "leases")):
        assert not allowed(world, verb, resource), f"may {verb} {resource}"


def test_nothing_was_forbidden_to_the_operator(world):
    for log in [*world.operator_logs, world.operator_log()]:
        # Pods whose RuntimeClass is not there are forbidden to their ReplicaSet; the operator only tells.
        assert log and not [line for line in log.splitlines()
                            if "forbidden" in line.lower() and "pod rejected: RuntimeClass" not in line]


def test_an_upgrade_rolls_the_operator(world):
    before = {pod["metadata"]["uid"] for pod in world.operator_pods()}
    stack.install_chart(world.kubectl, {"operator": {"logLevel": "debug"}}, reuse=True)
    pods = kube.wait(lambda: [p for p in world.operator_pods() if p["metadata"]["uid"] not in before], 60, "a new operator pod")
    assert "--log-level=debug" in pods[0]["spec"]["containers"][0]["args"]


def test_uninstalling_leaves_the_crd_and_nothing_else(world):
    shipped = yaml.safe_load(next((REPO / "crds").glob("*.yaml")).read_text())["metadata"]["name"]
    stack.uninstall_chart(world.kubectl)
    selector = "app.kubernetes.io/part-of=quern"
    kinds = "deployments,pods,services,configmaps,serviceaccounts,roles,rolebindings"
    kube.wait(lambda: not world.kubectl.list(kinds, stack.NAMESPACE, selector), 60, "the release's objects to go")
    assert not world.kubectl.list("clusterroles,clusterrolebindings", None, selector)
    assert world.kubectl.run("get", "crd", shipped)
