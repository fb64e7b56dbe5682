"""Runs each test of kube-api-tests (C++) against the private API server."""

import os
import subprocess
from pathlib import Path


def _names(binary: Path) -> list:
    listing = subprocess.run([binary, "--gtest_list_tests"], check=True, capture_output=True, text=True).stdout
    suite, names = "", []
    for line in listing.splitlines():
        if line.startswith("  "):
            names.append(suite + line.strip())
        else:
            suite = line.strip()
    return names


def pytest_generate_tests(metafunc):
    if "gtest_name" in metafunc.fixturenames:
        metafunc.parametrize("gtest_name", _names(Path(os.environ["QUERN_BIN"]) / "kube-api-tests"))


def test_client(gtest_name, programs, plane):
    done = subprocess.run([programs / "kube-api-tests", f"--gtest_filter={gtest_name}"], capture_output=True, text=True,
                          timeout=180, env={**os.environ, "QUERN_TEST_KUBECONFIG": str(plane.kubeconfig)})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "1 test from" in done.stdout  # a filter that matches nothing passes, too
