"""quern-gateway before real servers: what clients get through it, and what each side hears of the other."""

import subprocess
import threading

import openai
import pytest
import quern_gateway
import quern_serve
import requests
from conftest import client_of, start_server
from quern_serve import wait_for


def completion(server, name, max_tokens, prompt="Tell me a long story.", **more):
    body = {"model": name, "prompt": prompt, "max_tokens": max_tokens, "stream": True, "ignore_eos": True, **more}
    return requests.post(server.url + "/v1/completions", json=body, stream=True, timeout=quern_serve.PATIENCE)


def test_openai_client_gets_the_same_answers(replica, gateway, client):
    question = {"model": replica.name, "messages": [{"role": "user", "content": "What is a quern?"}], "max_tokens": 16,
                "temperature": 0}
    direct = client_of(replica).chat.completions.create(**question)
    through = client.chat.completions.create(**question)
    assert through.choices[0].message == direct.choices[0].message
    streamed = client.chat.completions.create(**question, stream=True, stream_options={"include_usage": True})
    chunks = list(streamed)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == direct.choices[0].message.content
    assert chunks[-1].usage.prompt_tokens == direct.usage.prompt_tokens
    assert client.models.list().data[0].id == replica.name
    with pytest.raises(openai.NotFoundError) as refusal:
        client.chat.completions.create(**question | {"model": "another"})
    assert refusal.value.body["param"] == "model"


def test_head_options_and_unknown_paths_are_the_servers(replica, gateway):
    for method, path in (("HEAD", "/v1/models"), ("OPTIONS", "/v1/models"), ("GET", "/nowhere"), ("PUT", "/v1/models")):
        direct, through = (requests.request(method, each.url + path, timeout=quern_serve.PATIENCE) for each in (replica, gateway))
        assert (through.status_code, through.text) == (direct.status_code, direct.text)
        left_out = ("Date", "Connection", "X-Request-Id")
        assert {k: v for k, v in through.headers.items() if k not in left_out} == {
            k: v for k, v in direct.headers.items() if k not in left_out}


def test_usage_teaches_how_many_tokens_arrive(replica, gateway):
    before = gateway.metrics()
    served = replica.metric("quern_prompt_tokens_total")
    body = {"model": replica.name, "prompt": "word " * 400, "max_tokens": 1}
    sent = requests.post(gateway.url + "/v1/completions", json=body, timeout=quern_serve.PATIENCE)
    assert sent.status_code == 200
    def grown(name):
        return gateway.metrics()[name] - before[name]
    tokens = sent.json()["usage"]["prompt_tokens"]
    wait_for(lambda: grown("quern_gateway_prompt_tokens_total") == tokens, "the usage")
    assert replica.metric("quern_prompt_tokens_total") - served == tokens
    assert grown("quern_gateway_request_body_bytes_total") == len(sent.request.body)
    # A body of mostly this text: the ratio lies between what it was before and this request's own.
    own = tokens / len(sent.request.body)
    ratio = gateway.metrics()["quern_gateway_prompt_tokens_per_body_byte"]
    assert abs(ratio - own) <= abs(before["quern_gateway_prompt_tokens_per_body_byte"] - own)
    assert grown("quern_gateway_estimated_prompt_tokens_total") > 0


def test_client_that_leaves_is_cancelled_at_the_server(replica, gateway):
    cancelled = replica.metric("quern_requests_finished_total", reason="cancelled")
    response = completion(gateway, replica.name, 2000)
    lines = response.iter_lines()
    while b"text" not in next(lines):
        pass
    assert gateway.metric("quern_gateway_requests_in_flight") == 1
    response.close()
    wait_for(lambda: replica.metric("quern_requests_finished_total", reason="cancelled") == cancelled + 1, "the cancellation")
    wait_for(lambda: gateway.metric("quern_gateway_requests_in_flight") == 0, "the gateway's count")
    wait_for(lambda: gateway.metric("quern_gateway_requests_total", code="499") >= 1, "status 499")


def test_server_that_is_killed_in_a_stream_ends_it_with_an_error():
    with start_server() as first, start_server() as second, quern_gateway.Gateway([first, second]) as gateway:
        streams = [completion(gateway, first.name, 500) for _ in range(2)]
        lines = [stream.iter_lines() for stream in streams]
        for each in lines:
            while b"text" not in next(each):
                pass
        assert [s.metric("quern_requests_running") for s in (first, second)] == [1, 1]  # they share the work
        first.process.kill()
        ended = []
        readers = [threading.Thread(target=lambda each=each: ended.append(list(each)), daemon=True) for each in lines]
        for reader in readers:
            reader.start()
        wait_for(lambda: ended, "the end of the stream whose server is gone")
        events = [line for line in ended[0] if line]
        assert b'"code":"upstream_error"' in events[-2] and events[-1] == b"data: [DONE]"
        # Others do not notice: the next requests go to the one that is left.
        client = client_of(gateway)
        for _ in range(4):
            assert client.completions.create(model=second.name, prompt="a", max_tokens=1).choices
        assert gateway.metric("quern_gateway_replicas_ready") == 1
        for reader in readers:
            reader.join(timeout=quern_serve.PATIENCE)
        events = [line for line in ended[1] if line]
        assert b'"finish_reason":"length"' in events[-2] and events[-1] == b"data: [DONE]"


def test_server_that_drains_loses_no_request():
    with start_server() as first, start_server() as second, quern_gateway.Gateway([first, second]) as gateway:
        stop = threading.Event()
        statuses: list[int] = []

        def ask():
            session = requests.Session()
            while not stop.is_set():
                body = {"model": first.name, "prompt": "a", "max_tokens": 8, "ignore_eos": True}
                statuses.append(session.post(gateway.url + "/v1/completions", json=body, timeout=quern_serve.PATIENCE).status_code)

        askers = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
        for asker in askers:
            asker.start()
        wait_for(lambda: len(statuses) > 20, "some answers")
        first.signal()
        assert first.wait() == 0
        after = len(statuses)
        wait_for(lambda: len(statuses) > after + 20, "answers of the one that is left")
        stop.set()
        for asker in askers:
            asker.join(timeout=quern_serve.PATIENCE)
        assert set(statuses) == {200}


def test_limits_are_the_gateways_own(replica):
    with quern_gateway.Gateway([replica], "--max-body", "1KiB") as gateway:
        refused = gateway.post("/v1/completions", {"model": replica.name, "prompt": "x" * 2000})
        assert refused.status_code == 413 and refused.json()["error"]["code"] == "body_too_large"
        assert gateway.metric("quern_gateway_requests_total", code="413") == 1
        assert gateway.metric("quern_gateway_http_limits_total", limit="body_bytes") == 1


@pytest.mark.parametrize("arguments, said", [
    ([], "--upstream or --upstream-dns: one is needed"),
    (["--upstream", "127.0.0.1:8000"], "--upstream: '127.0.0.1:8000' does not begin with http://"),
    (["--upstream", "http://a:1/v1"], "--upstream: 'http://a:1/v1' has a path"),
    (["--upstream", "http://a"], "--upstream: 'http://a': it has no port"),
    (["--upstream-dns", "a:0"], "--upstream-dns: 'a:0': its port is no number from 1 to 65535"),
    (["--upstream", "http://a:1", "--wake-token-file", "t"], "--wake-token-file: needs --wake-url"),
    (["--upstream", "http://a:1", "--max-wait", "soon"], "--max-wait: 'soon'"),
    (["--upstrem", "http://a:1"], "--upstrem: there is no such option; did you mean --upstream?"),
])
def test_bad_options_are_one_clear_line_and_exit_code_2(arguments, said):
    done = subprocess.run([quern_gateway.binary(), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"quern-gateway: {said}"), done.stderr


def test_help_and_version():
    helped = subprocess.run([quern_gateway.binary(), "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert helped.returncode == 0 and "--max-waiting-bytes" in helped.stdout
    version = subprocess.run([quern_gateway.binary(), "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert version.returncode == 0 and version.stdout.startswith("quern-gateway 0.")
