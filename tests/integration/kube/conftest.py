"""A private etcd and kube-apiserver for the tests of this folder."""

import os
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPO / "hack" / "lib"))
from quern_dev.control_plane import ControlPlane  # noqa: E402


@pytest.fixture(scope="session")
def programs() -> Path:
    """Where the build's programs lie."""
    return Path(os.environ["QUERN_BIN"])


@pytest.fixture(scope="session")
def plane():
    with ControlPlane() as running:
        yield running


@pytest.fixture
def own_plane():
    """One that a test may stop and restart."""
    with ControlPlane() as running:
        yield running
