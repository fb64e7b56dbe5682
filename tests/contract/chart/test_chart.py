"""What the chart installs, and what it refuses to."""

import re
import shutil

import pytest
import yaml
from conftest import CHART, KUBE_VERSION, REPO

OPERATOR = "Deployment/quern-operator"


def only(objects, kind):
    found = [o for name, o in objects.items() if name.startswith(kind + "/")]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def test_helm_lint_finds_nothing(helm):
    for extra in ([], ["--set", "metrics.podMonitor.enabled=true,metrics.rules.enabled=true,watchNamespace=team-a"]):
        out = helm.run("lint", "--strict", CHART, *extra).stdout
        assert "1 chart(s) linted, 0 chart(s) failed" in out
        assert "[ERROR]" not in out and "[WARNING]" not in out, out


def test_the_chart_ships_the_crds_of_the_project_unchanged():
    source = sorted((REPO / "crds").glob("*.yaml"))
    shipped = sorted((CHART / "files" / "crds").glob("*.yaml"))
    assert source, "crds/ is empty"
    assert [p.name for p in source] == [p.name for p in shipped]
    for ours, copy in zip(source, shipped, strict=True):
        assert ours.read_bytes() == copy.read_bytes(), f"run: cp crds/{ours.name} charts/quern/files/crds/"


def test_the_rendered_crd_is_the_projects_and_outlives_the_release(helm):
    rendered = only(helm.render(), "CustomResourceDefinition")
    source = yaml.safe_load(next((REPO / "crds").glob("*.yaml")).read_text())
    assert rendered["spec"] == source["spec"]
    assert rendered["metadata"]["name"] == source["metadata"]["name"]
    assert rendered["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not [n for n in helm.render("crds.install=false") if n.startswith("CustomResourceDefinition/")]


def test_the_operator_cannot_become_root_or_write_to_its_file_system(helm):
    pod = helm.render()[OPERATOR]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC", "volumes"))


def test_the_operator_has_probes_and_resources(helm):
    container = helm.render()[OPERATOR]["spec"]["template"]["spec"]["containers"][0]
    for probe, path in (("startupProbe", "/health/live"), ("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")):
        assert container[probe]["httpGet"] == {"path": path, "port": "health"}
    assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def test_rbac_names_every_resource_and_verb(helm):
    rendered = helm.render()
    for name, role in rendered.items():
        if not name.startswith(("Role/", "ClusterRole/")):
            continue
        for rule in role["rules"]:
            for part in ("apiGroups", "resources", "verbs"):
                assert "*" not in rule[part], f"{name}: {rule}"
            assert "secrets" not in rule["resources"], f"{name} reads secrets: {rule}"
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert not any(resource.startswith(("roles", "clusterroles", "rolebindings")) for resource in rule["resources"])
            assert "deletecollection" not in rule["verbs"]


def test_the_leader_s_lease_is_the_only_one_it_may_change(helm):
    role = helm.render()["Role/quern-operator-leader"]
    assert role["metadata"]["namespace"] == "quern"
    for rule in role["rules"]:
        assert rule["resources"] == ["leases"]
        assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["quern-operator"]


def test_each_release_has_a_lease_of_its_own(helm):
    """Two in one namespace would otherwise wait for each other, and one watched namespace would be looked after by none."""
    for release, name in (("quern", "quern-operator"), ("b", "b-quern-operator")):
        rendered = helm.render("watchNamespace=team-b", release=release)
        args = rendered[f"Deployment/{name}"]["spec"]["template"]["spec"]["containers"][0]["args"]
        assert f"--lease-name={name}" in args
        assert [r["resourceNames"] for r in rendered[f"Role/{name}-leader"]["rules"] if "resourceNames" in r] == [[name]]


def test_with_a_watched_namespace_nothing_is_cluster_wide(helm):
    rendered = helm.render("watchNamespace=team-a")
    assert not [n for n in rendered if n.startswith("ClusterRole")]
    assert rendered["Role/quern-operator"]["metadata"]["namespace"] == "team-a"
    assert rendered["RoleBinding/quern-operator"]["metadata"]["namespace"] == "team-a"
    assert rendered["RoleBinding/quern-operator"]["subjects"][0]["namespace"] == "quern"
    assert "--namespace=team-a" in rendered[OPERATOR]["spec"]["template"]["spec"]["containers"][0]["args"]


@pytest.mark.parametrize(("setting", "argument"), [
    ("models.volume.hostPath=/var/lib/m", "--allowed-model-volume=hostPath:/var/lib/m@/models"),
    ("models.volume.persistentVolumeClaim=weights", "--allowed-model-volume=pvc:weights@/models"),
    ("image.serve.tag=abc", "--serve-image=localhost/quern/serve:abc"),
    ("image.serveCuda.repository=r.example/serve-cuda,image.serveCuda.tag=abc", "--serve-image-cuda=r.example/serve-cuda:abc"),
    ("gpu.runtimeClassName=nvidia-cdi", "--gpu-runtime-class=nvidia-cdi"),
    ("gpu.runtimeClassName=", "--gpu-runtime-class=none"),
    ("image.serve.tag=abc", "--gpu-runtime-class=nvidia"),
    ("operator.logLevel=debug", "--log-level=debug"),
    ("operator.allowedImages={r.example/a/,r.example/b}", "--allowed-image=r.example/a/"),
    ("operator.allowedImages={r.example/a/,r.example/b}", "--allowed-image=r.example/b"),
])
def test_a_value_becomes_the_operator_s_argument(helm, setting, argument):
    assert argument in helm.render(setting)[OPERATOR]["spec"]["template"]["spec"]["containers"][0]["args"]


def test_without_an_image_with_cuda_none_is_named(helm):
    args = helm.render()[OPERATOR]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert not [a for a in args if a.startswith("--serve-image-cuda")]


def test_prometheus_finds_the_operator_by_its_annotations(helm):
    annotations = helm.render()[OPERATOR]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == "8080"
    ports = {p["name"]: p["containerPort"] for p in helm.render()[OPERATOR]["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert ports["metrics"] == 8080


@pytest.mark.parametrize(("setting", "said"), [
    ("operator.replicas=0", "replicas"),
    ("operator.logLevel=loud", "logLevel"),
    ("watchNamespace=Not_A_Name", "watchNamespace"),
    ("models.volume.hostPath=relative", "hostPath"),
    ("models.volume.hostPath=/a,models.volume.persistentVolumeClaim=b", "volume"),
    ("operator.securityContext.runAsUser=0", "runAsUser"),
    ("operator.allowedImages=a", "allowedImages"),
    ("operator.allowedImages={a b}", "allowedImages"),
    ("gpu.runtimeClassName=Not_One", "runtimeClassName"),
    ("misspelt=1", "misspelt"),
    ("operator.replicas=2,operator.leaderElection=false", "leaderElection"),
])
def test_a_wrong_value_is_refused_by_name(helm, setting, said):
    done = helm.run("template", "quern", CHART, "--kube-version", KUBE_VERSION, "--set", setting, check=False)
    assert done.returncode != 0
    assert said in done.stderr


def test_the_selector_matches_the_pods(helm):
    spec = helm.render()[OPERATOR]["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_the_notes_show_commands_that_fit_the_values(helm, tmp_path):
    # `helm template` leaves NOTES.txt out: a copy of the chart renders it as an object's text.
    chart = tmp_path / "quern"
    shutil.copytree(CHART, chart)
    shutil.copy(chart / "templates" / "NOTES.txt", chart / "notes-copy.txt")
    (chart / "templates" / "notes.yaml").write_text(
        'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n'
        'data: {notes: {{ tpl (.Files.Get "notes-copy.txt") . | quote }}}\n')
    notes = helm.render("models.volume.hostPath=/var/lib/m", chart=chart)["ConfigMap/notes"]["data"]["notes"]
    assert "file:///models/my-model.gguf" in notes and "/var/lib/m" in notes
    assert re.search(r"rollout status deployment/quern-operator", notes)
