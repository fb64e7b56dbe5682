import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))
import quern_serve  # noqa: E402
from scripted_api import ScriptedApi  # noqa: E402


@pytest.fixture(scope="session")
def smollm2():
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--threads", "2", "--kv-memory", "128MiB") as server:
        yield server


@pytest.fixture
def api():
    with ScriptedApi() as server:
        yield server
