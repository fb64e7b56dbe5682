"""Helm, run for real on the chart of this checkout."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPO / "hack" / "lib"))
from quern_dev import golang  # noqa: E402

KUBE_VERSION = "1.35.4"
CHART = REPO / "charts" / "quern"


class Helm:
    def __init__(self, home: Path):
        self._program = golang.program("helm", "helm")
        self._env = {"HELM_CACHE_HOME": str(home), "HELM_CONFIG_HOME": str(home), "HELM_DATA_HOME": str(home),
                     "HOME": str(home), "PATH": "/usr/bin:/bin"}

    def run(self, *arguments, check=True):
        done = subprocess.run([self._program, *map(str, arguments)], capture_output=True, text=True, env=self._env,
                              stdin=subprocess.DEVNULL, check=False, timeout=60)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def render(self, *settings, namespace="quern", release="quern", chart=CHART):
        """The objects that `helm install RELEASE` would send, by "Kind/name"."""
        values = [part for setting in settings for part in ("--set", setting)]
        out = self.run("template", release, chart, "--namespace", namespace, "--kube-version", KUBE_VERSION, *values).stdout
        objects = [document for document in yaml.safe_load_all(out) if document]
        named = {f"{o['kind']}/{o['metadata']['name']}": o for o in objects}
        assert len(named) == len(objects), "two objects of one kind have the same name"
        return named


@pytest.fixture(scope="session")
def helm(tmp_path_factory):
    return Helm(tmp_path_factory.mktemp("helm"))
