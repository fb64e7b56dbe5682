"""kubeconform: what the project ships and creates, checked strictly against the schemas of a real API server.

The schemas come from the server's own OpenAPI documents, so the check needs no network and knows our CRD too."""

import json
import subprocess
import time

import pytest
import yaml
from conftest import KUBE_VERSION, REPO
from quern_dev import golang
from quern_dev.control_plane import ControlPlane

_CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/inferenceendpoints.serving.quern.dev"
_DOCUMENTS = ("api/v1", "apis/apps/v1", "apis/policy/v1", "apis/networking.k8s.io/v1", "apis/rbac.authorization.k8s.io/v1",
              "apis/apiextensions.k8s.io/v1", "apis/serving.quern.dev/v1alpha1")


def strict(node):
    """Closes every object with named fields, as the API server's strict field validation does."""
    if isinstance(node, dict):
        if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
            node.setdefault("additionalProperties", False)
        for value in node.values():
            strict(value)
    elif isinstance(node, list):
        for value in node:
            strict(value)
    return node


def openapi(client, path):
    answer = client.get(f"/openapi/v3{path}")
    return json.loads(answer) if isinstance(answer, str) else answer  # the index is served as text/plain


def write_schemas(client, directory):
    """One file for each kind, <kind>-<group>-<version>.json, as kubeconform's template below asks for them."""
    for document in _DOCUMENTS:
        components = strict(openapi(client, f"/{document}")["components"])
        for name, schema in components["schemas"].items():
            for gvk in schema.get("x-kubernetes-group-version-kind", []):
                group = gvk["group"].split(".")[0] + "-" if gvk["group"] else ""
                target = directory / f"{gvk['kind']}-{group}{gvk['version']}.json".lower()
                target.write_text(json.dumps({"$ref": f"#/components/schemas/{name}", "components": components}))


@pytest.fixture(scope="module")
def kubeconform(tmp_path_factory):
    """Runs kubeconform on files; returns its exit code and its findings."""
    schemas = tmp_path_factory.mktemp("schemas")
    with ControlPlane() as plane:
        plane.client.apply(_CRD, yaml.safe_load(next((REPO / "crds").glob("*.yaml")).read_text()))
        deadline = time.monotonic() + 60
        while _DOCUMENTS[-1] not in openapi(plane.client, "")["paths"]:
            assert time.monotonic() < deadline, "the API server does not publish the CRD's schema"
            time.sleep(0.2)
        write_schemas(plane.client, schemas)

    def run(*files):
        done = subprocess.run(
            [golang.program("kubeconform", "kubeconform"), "-strict", "-summary", "-output", "json",
             "-kubernetes-version", KUBE_VERSION, "-schema-location", f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", *files],
            capture_output=True, text=True, check=False, timeout=120)
        return done.returncode, json.loads(done.stdout) if done.stdout else {"errors": done.stderr}

    return run


def expect_clean(outcome, objects):
    code, report = outcome
    assert code == 0, report
    assert report["summary"] == {"valid": objects, "invalid": 0, "errors": 0, "skipped": 0}


def test_the_crd_and_the_examples_are_clean(kubeconform):
    expect_clean(kubeconform(*(REPO / "crds").glob("*.yaml")), 1)
    examples = list((REPO / "examples").glob("*.yaml"))
    expect_clean(kubeconform(*examples), len(examples))


@pytest.mark.parametrize("settings", [(), ("operator.replicas=2",), ("watchNamespace=team-a",),
                                      ("models.volume.hostPath=/var/lib/m", "dashboards.enabled=false")])
def test_every_object_of_the_chart_is_clean(kubeconform, helm, tmp_path, settings):
    objects = list(helm.render(*settings).values())
    (tmp_path / "rendered.yaml").write_text(yaml.safe_dump_all(objects))
    expect_clean(kubeconform(tmp_path / "rendered.yaml"), len(objects))


@pytest.mark.parametrize("golden", ["minimal", "full"])
def test_every_object_that_the_operator_makes_is_clean(kubeconform, tmp_path, golden):
    made = json.loads((REPO / "tests" / "unit" / "operator" / "resources" / "golden" / f"{golden}.json").read_text())
    objects = made if isinstance(made, list) else list(made.values())
    (tmp_path / "made.yaml").write_text(yaml.safe_dump_all(objects))
    expect_clean(kubeconform(tmp_path / "made.yaml"), len(objects))


def test_a_misspelt_field_and_a_wrong_type_are_found(kubeconform, tmp_path):
    for number, spec in enumerate(({"model": {"uri": "file:///models/a.gguf"}, "scalling": {}}, {"model": {"uri": 5}})):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump({"apiVersion": "serving.quern.dev/v1alpha1", "kind": "InferenceEndpoint",
                                        "metadata": {"name": "a"}, "spec": spec}))
        code, report = kubeconform(path)
        assert code == 1 and report["summary"]["invalid"] == 1, report
