import sys
from pathlib import Path

import openai
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))
import quern_gateway  # noqa: E402
import quern_serve  # noqa: E402


def start_server(*options, **arguments):
    return quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--threads", "1", "--kv-memory", "128MiB", *options, **arguments)


def client_of(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="not needed", max_retries=0, timeout=quern_serve.PATIENCE)


@pytest.fixture(scope="session")
def replica():
    """A server that the tests leave as it was."""
    with start_server() as server:
        yield server


@pytest.fixture(scope="session")
def gateway(replica):
    with quern_gateway.Gateway([replica]) as running:
        yield running


@pytest.fixture(scope="session")
def client(gateway):
    return client_of(gateway)
