import sys
from pathlib import Path

import openai
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))
import quern_serve  # noqa: E402


@pytest.fixture(scope="session")
def smollm2():
    """A server with the small chat model, shared by the tests that leave it as it was."""
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--threads", "2", "--kv-memory", "256MiB",
                            "--max-body", "256KiB") as server:
        yield server


@pytest.fixture(scope="session")
def client(smollm2):
    return openai.OpenAI(base_url=smollm2.url + "/v1", api_key="not needed", max_retries=0,
                         timeout=quern_serve.PATIENCE)
