"""From a checkout to an installed operator: build, images, chart. Shared by the demo and the end-to-end tests."""

import json
import subprocess
import tempfile
from pathlib import Path

import yaml

from . import console, images, paths
from .cluster.layout import MODEL_ROOT
from .cluster.lifecycle import Cluster
from .kubectl import Kubectl, program

NAMESPACE = "quern"
RELEASE = "quern"
CHART = paths.REPO / "charts" / "quern"
_MARK = "installed-by"  # a label of the Helm release


def local_kubectl(cluster: Cluster) -> Kubectl:
    return Kubectl(cluster.layout.kubeconfig, program=program("kubernetes", "kubectl"))


def local_values() -> dict:
    """What the chart needs to know of the local cluster."""
    return {"models": {"volume": {"hostPath": MODEL_ROOT}}}


def build_programs() -> Path:
    """Builds the release programs. Returns their directory."""
    build = paths.REPO / "build" / "release"
    if not (build / "build.ninja").exists():
        console.run_logged("configure the release build", ["cmake", "--preset", "release"],
                           paths.logs_dir() / "configure.log", cwd=paths.REPO)
    console.run_logged("build quern-operator and quern-serve (release)", ["ninja", "-C", build, "programs"],
                       paths.logs_dir() / "build-release.log", cwd=paths.REPO)
    return build / "bin"


def _helm_upgrade(kubectl: Kubectl, values: dict, *options) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        kubectl.helm(program("helm", "helm"), "upgrade", "--install", RELEASE, CHART, "--namespace", NAMESPACE,
                     "--create-namespace", "--values", file.name, "--wait", "--timeout", "120s", *options)


def build_images(binaries: Path) -> dict:
    """Writes the images' archives; by image name. A tag is made from the content: what has not changed keeps its name."""
    with console.stage("make the container images"):
        return {definition.name: images.build(definition, binaries, paths.REPO / "build" / "images")
                for definition in images.IMAGES}


def make_images(cluster: Cluster, binaries: Path) -> dict:
    """Builds the images, puts them into the node, and returns the chart's values that name them."""
    built = build_images(binaries)
    cluster.load([image.archive for image in built.values()], quiet=True)
    return {"image": {name: image_values(image.reference) for name, image in built.items()}}


def image_values(reference: str) -> dict:
    """{"repository", "tag"} of "name:tag"; Failure if there is no tag."""
    repository, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        raise console.Failure(f"the image {reference} has no tag; write NAME:TAG")
    return {"repository": repository, "tag": tag}


def install_chart(kubectl: Kubectl, values: dict, *, reuse: bool = False, mark: str = "") -> None:
    """Installs or upgrades the release and waits for the operator. With `reuse`, `values` go over the release's own.

    `mark` is kept with the release, for has_release().
    """
    _helm_upgrade(kubectl, values, *(["--reuse-values"] if reuse else []), *([f"--labels={_MARK}={mark}"] if mark else []))


def has_release(kubectl: Kubectl, mark: str = "") -> bool:
    """Whether the release is there; with `mark`, whether it was installed with that mark."""
    selector = ["--selector", f"{_MARK}={mark}"] if mark else []
    return bool(json.loads(kubectl.helm(program("helm", "helm"), "list", "--all", "--namespace", NAMESPACE, "--filter",
                                        f"^{RELEASE}$", "--output", "json", *selector)))


def uninstall_chart(kubectl: Kubectl) -> None:
    kubectl.helm(program("helm", "helm"), "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
