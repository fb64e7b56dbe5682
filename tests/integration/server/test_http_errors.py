"""What a client may get wrong, on the wire: status, OpenAI's error object, and a server that lives on."""

import gzip
import json
import socket
import time
from urllib.parse import urlparse

import pytest
import quern_serve


def error_of(response, status):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def connect(server):
    url = urlparse(server.url)
    return socket.create_connection((url.hostname, url.port), timeout=quern_serve.PATIENCE)


def read_to_end(connection) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


BODIES = [
    (b"{", 400, "invalid_json", None),
    (b"", 400, "invalid_json", None),
    (b"[]", 400, "invalid_type", None),
    (b'{"model": "M", "prompt": "a", "max_tokens": 0}', 400, "invalid_value", "max_tokens"),
    (b'{"model": "M", "prompt": "a", "max_tokens": -1}', 400, "invalid_value", "max_tokens"),
    (b'{"model": "M", "prompt": "a", "max_tokens": "5"}', 400, "invalid_type", "max_tokens"),
    (b'{"model": "M", "prompt": "a", "temperature": "hot"}', 400, "invalid_type", "temperature"),
    (b'{"model": "M", "prompt": {"a": 1}}', 400, "invalid_type", "prompt"),
    (b'{"model": "M"}', 400, "missing_required_parameter", "prompt"),
    (b'{"model": "nope", "prompt": "a"}', 404, "model_not_found", "model"),
    (b'{"model": 5, "prompt": "a"}', 400, "invalid_type", "model"),
    (b'{"model": "M", "prompt": "\xff\xfe"}', 400, "invalid_json", None),
    (b'{"model": "M", "prompt": "\\ud800"}', 400, "invalid_json", None),
    (b'{"model": "M", "prompt": "a", "suffix": "b"}', 400, "unsupported_parameter", "suffix"),
    (b'{"model": "M", "prompt": "a", "n": 17}', 400, "invalid_value", "n"),
    (b'{"model": "M", "prompt": "a", "logit_bias": {"49152": 1}}', 400, "invalid_value", 'logit_bias["49152"]'),
    (b'{"model": "M", "prompt": "a", "max_token": 2}', 400, "unknown_parameter", "max_token"),
    (b'{"model": "M", "prompt": [49152]}', 400, "invalid_value", "prompt[0]"),
    (b'{"model": "M", "prompt": "a", "temperature": 1e999}', 400, "invalid_value", "temperature"),
    (b'{"model": "M", "prompt": "a", "user": 5}', 400, "invalid_type", "user"),
    (b"[" * 200_000, 400, "invalid_json", None),
    (b'{"a":' * 40_000, 400, "invalid_json", None),
]


@pytest.mark.parametrize("body,status,code,param", BODIES, ids=range(len(BODIES)))
def test_bad_bodies_are_answered_not_obeyed(smollm2, body, status, code, param):
    error = error_of(smollm2.post("/v1/completions", body.replace(b'"M"', f'"{smollm2.name}"'.encode())), status)
    assert (error["code"], error["param"]) == (code, param), error


def test_bad_json_is_located(smollm2):
    error = error_of(smollm2.post("/v1/chat/completions", b'{"model": "m",\n "messages": oops}'), 400)
    assert "line 2, column" in error["message"]


def test_prompt_longer_than_the_context_gives_figures(smollm2):
    body = {"model": smollm2.name, "prompt": "word " * 20_000}
    error = error_of(smollm2.post("/v1/completions", body), 400)
    assert error["code"] == "context_length_exceeded"
    limit = smollm2.get("/v1/models").json()["data"][0]["max_model_len"]
    assert str(limit) in error["message"]


def test_body_over_the_limit_is_413(smollm2):
    before = smollm2.metric("quern_requests_rejected_total", reason="body_bytes")
    error = error_of(smollm2.post("/v1/completions", b"x" * 300_000), 413)
    assert "262144" in error["message"]
    assert smollm2.metric("quern_requests_rejected_total", reason="body_bytes") == before + 1


def test_unknown_paths_and_methods(smollm2):
    assert error_of(smollm2.get("/v1/nothing"), 404)["code"] == "not_found"
    response = smollm2.get("/v1/completions")
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["Allow"] == "OPTIONS, POST"
    assert "is on the administrative port" in error_of(smollm2.get("/metrics"), 404)["message"]
    misspelt = error_of(smollm2.post("/v1/chat/completion", {}), 404)
    assert "the nearest first: /v1/chat/completions, " in misspelt["message"]


def test_a_compressed_body_is_415_not_bad_json(smollm2):
    body = gzip.compress(json.dumps({"model": smollm2.name, "prompt": "a"}).encode())
    response = smollm2.post("/v1/completions", body, headers={"Content-Encoding": "gzip"})
    error = error_of(response, 415)
    assert error["code"] == "unsupported_content_encoding" and "'gzip'" in error["message"]
    assert response.headers["Accept-Encoding"] == "identity"


@pytest.fixture(scope="module")
def impatient():
    """A server of its own: where requests must arrive within a second, a busy machine is soon too slow."""
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--threads", "1", "--kv-memory", "64MiB",
                            "--max-context-tokens", "1024", "--header-timeout", "1s", "--body-timeout", "1s") as server:
        yield server


def test_client_that_sends_its_header_too_slowly_gets_408(impatient):
    with connect(impatient) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost:")
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 ")


def test_client_that_trickles_its_body_gets_408(impatient):
    with connect(impatient) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 5000\r\n\r\n")
        start = time.monotonic()
        received = b""
        connection.settimeout(0.1)
        while b"408" not in received and time.monotonic() - start < quern_serve.PATIENCE:
            try:
                connection.sendall(b"x")
                received += connection.recv(65536)
            except TimeoutError:
                pass
        assert received.startswith(b"HTTP/1.1 408 ")


def test_health_is_on_both_ports_and_metrics_on_one(smollm2):
    for admin in (False, True):
        assert smollm2.get("/health/live", admin).json() == {"status": "live"}
        assert smollm2.get("/health/ready", admin).json() == {"status": "ready"}
    assert smollm2.get("/metrics", admin=True).headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_all_of_that_left_the_server_well(smollm2):
    reply = smollm2.post("/v1/completions", {"model": smollm2.name, "prompt": "a", "max_tokens": 2})
    assert reply.status_code == 200
    assert not [line for line in smollm2.log if " error " in line]
