"""From zero and back: requests that wait for a server which is started because they do, and the end of a gateway."""

import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import quern_gateway
import quern_serve
import requests
from conftest import client_of, start_server
from quern_serve import wait_for

NAME = quern_serve.SMOLLM2.removesuffix(".gguf")


class WakeServer:
    """Stands for the operator: tells of each call with the right token."""

    def __init__(self, on_wake):
        self.calls: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                outer.calls.append((self.path, self.headers["Authorization"]))
                self.send_response(204)
                self.end_headers()
                on_wake()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/wake/default/smollm2"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def in_background(call, *arguments):
    results = []
    thread = threading.Thread(target=lambda: results.append(call(*arguments)), daemon=True)
    thread.start()
    return results, thread


def test_cold_requests_wake_the_endpoint_and_are_all_answered(tmp_path):
    (port,) = quern_gateway.free_ports(1)
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    woken = threading.Event()
    with WakeServer(woken.set) as waker, quern_gateway.Gateway(
            [port], "--wake-url", waker.url, "--wake-token-file", str(token), "--comment-interval", "200ms") as gateway:
        client = client_of(gateway)
        plain = [in_background(lambda: client.completions.create(model=NAME, prompt="a", max_tokens=2)) for _ in range(6)]
        body = {"model": NAME, "prompt": "a", "max_tokens": 3, "stream": True}
        stream = requests.post(gateway.url + "/v1/completions", json=body, stream=True, timeout=quern_serve.PATIENCE)
        assert stream.status_code == 200 and stream.headers["Content-Type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert next(lines) == b": waiting"
        wait_for(lambda: gateway.metric("quern_gateway_requests_waiting") == 7, "seven that wait")
        assert woken.wait(quern_serve.PATIENCE)
        assert set(waker.calls) == {("/wake/default/smollm2", "Bearer s3cret")}
        with start_server(port=port):
            texts = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
            assert texts[-1]["choices"][0]["finish_reason"] and "error" not in texts[-1]
            for results, thread in plain:
                thread.join(timeout=quern_serve.PATIENCE)
                assert results[0].choices[0].text is not None
            # An official client takes the comments for nothing.
            assert gateway.metric("quern_gateway_requests_waiting") == 0
            assert gateway.metric("quern_gateway_requests_total", code="200") == 7
            assert gateway.metric("quern_gateway_waiting_seconds_count") == 7


def test_openai_client_streams_after_signs_of_life():
    (port,) = quern_gateway.free_ports(1)
    with quern_gateway.Gateway([port], "--comment-interval", "100ms") as gateway:
        def ask():
            return list(client_of(gateway).completions.create(model=NAME, prompt="a", max_tokens=3, stream=True))
        results, thread = in_background(ask)
        wait_for(lambda: gateway.metric("quern_gateway_requests_waiting") == 1, "the one that waits")
        with start_server(port=port):
            thread.join(timeout=quern_serve.PATIENCE)
            assert results and results[0][-1].choices[0].finish_reason


def test_too_many_are_refused():
    (port,) = quern_gateway.free_ports(1)
    body = {"model": NAME, "prompt": "a"}
    with quern_gateway.Gateway([port], "--max-waiting", "1") as gateway:
        first, thread = in_background(gateway.post, "/v1/completions", body)
        wait_for(lambda: gateway.metric("quern_gateway_requests_waiting") == 1, "the one that waits")
        full = gateway.post("/v1/completions", body)
        assert full.status_code == 429 and int(full.headers["Retry-After"]) > 0
        assert full.json()["error"]["type"] == "rate_limit_error" and full.json()["error"]["code"] == "waiting_room_full"
        with start_server(port=port):
            thread.join(timeout=quern_serve.PATIENCE)
            assert first[0].status_code == 200
    with quern_gateway.Gateway([port], "--max-waiting-bytes", "1KiB") as gateway:
        large = gateway.post("/v1/completions", body | {"prompt": "x" * 2000})
        assert large.status_code == 429 and large.json()["error"]["code"] == "waiting_room_full"
        assert gateway.metric("quern_gateway_requests_refused_total", reason="waiting_bytes") == 1


def test_too_long_a_wait_ends_with_an_error():
    (port,) = quern_gateway.free_ports(1)
    body = {"model": NAME, "prompt": "a"}
    with quern_gateway.Gateway([port], "--max-wait", "1s", "--comment-interval", "100ms") as gateway:
        plain, plain_thread = in_background(gateway.post, "/v1/completions", body)
        streamed, stream_thread = in_background(gateway.post, "/v1/completions", body | {"stream": True})
        for thread in (plain_thread, stream_thread):
            thread.join(timeout=quern_serve.PATIENCE)
        assert plain[0].status_code == 503 and int(plain[0].headers["Retry-After"]) > 0
        assert plain[0].json()["error"]["code"] == "no_replica"
        assert streamed[0].status_code == 200 and ": waiting\n\n" in streamed[0].text
        assert '"code":"no_replica"' in streamed[0].text and streamed[0].text.endswith("data: [DONE]\n\n")
        assert gateway.metric("quern_gateway_requests_refused_total", reason="max_wait") == 2


def test_sigterm_lets_what_runs_finish():
    with start_server() as replica, quern_gateway.Gateway([replica], "--drain-timeout", "60s") as gateway:
        body = {"model": NAME, "prompt": "a", "max_tokens": 100, "stream": True, "ignore_eos": True}
        stream = requests.post(gateway.url + "/v1/completions", json=body, stream=True, timeout=quern_serve.PATIENCE)
        lines = stream.iter_lines()
        next(lines)
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: gateway.process.poll() is not None or gateway.get("/health/ready", admin=True).status_code == 503,
                 "not to be ready")
        events = [line for line in lines if line]
        assert events[-1] == b"data: [DONE]" and b"error" not in events[-2]
        assert gateway.wait() == 0


def test_sigterm_answers_those_that_wait_at_the_end_of_it():
    (port,) = quern_gateway.free_ports(1)
    with quern_gateway.Gateway([port], "--drain-timeout", "1s") as gateway:
        waiting, thread = in_background(gateway.post, "/v1/completions", {"model": NAME, "prompt": "a"})
        wait_for(lambda: gateway.metric("quern_gateway_requests_waiting") == 1, "the one that waits")
        gateway.signal(signal.SIGTERM)
        thread.join(timeout=quern_serve.PATIENCE)
        assert waiting[0].status_code == 503 and waiting[0].headers["Retry-After"]
        assert waiting[0].json()["error"]["code"] == "draining"
        assert gateway.wait() == 1


def test_name_is_looked_up_for_replicas():
    with start_server() as replica:
        port = replica.url.rsplit(":", 1)[1]
        with quern_gateway.Gateway([], "--upstream-dns", f"localhost:{port}", ready=1) as gateway:
            assert client_of(gateway).completions.create(model=NAME, prompt="a", max_tokens=1).choices
