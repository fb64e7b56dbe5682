"""A server of OpenAI's API whose every answer a test decides, to see what a client makes of it."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def send_json(self, status: int, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def send_text(self, text: str):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def begin_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_event(self, event):
        text = event if isinstance(event, str) else json.dumps(event)
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def end_stream(self):
        self.wfile.write(b"0\r\n\r\n")

    def send_answer(self, pieces, usage=None):
        """A streamed completion of these texts, an event for each."""
        self.begin_stream()
        for piece in pieces:
            self.send_event({"choices": [{"index": 0, "text": piece, "finish_reason": None}], "usage": None})
        self.send_event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
        if usage:
            self.send_event({"choices": [], "usage": usage})
        self.send_event("[DONE]")
        self.end_stream()

    def cut(self):
        """Resets the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True
        self.connection.close()

    def do_GET(self):
        self.server.api.got(self.path, None)
        if self.path == "/v1/models":
            return self.send_json(200, {"data": [{"id": "scripted", "owned_by": "a test"} | self.server.api.told]})
        if self.path == "/metrics" and self.server.api.metrics:
            self.server.api.metrics_asked_with.append(self.headers["Authorization"])
            return self.send_text(self.server.api.metrics.pop(0))
        if self.path == "/version":
            return self.send_json(200, {"version": "1.2.3"})
        return self.send_json(404, {"detail": "Not Found"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.api.got(self.path, body)
        if body.get("stream"):
            return self.server.api.answer(self, body)
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            return self.send_json(404, {"detail": "Not Found"})
        text = body["prompt"] if "prompt" in body else body["messages"][0]["content"]
        # What a client asks to learn how words become tokens: here, one each and one before.
        return self.send_json(200, {"choices": [{"text": "x"}], "usage": {
            "prompt_tokens": len(text.split()) + 1, "completion_tokens": 1}})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that goes away is part of the tests


class ScriptedApi:
    """On a free port. `answer(handler, body)` answers streamed requests; `requests` are all that came. `metrics`: what /metrics says,
    one after the other, then 404."""

    def __init__(self, tls=None):
        self.metrics: list[str] = []
        self.metrics_asked_with: list[str | None] = []  # the keys
        self.requests, self._lock = [], threading.Lock()
        self.told = {}  # what the list of models says beside its name
        self.answer = lambda handler, body: handler.send_answer(["x"] * body["max_tokens"])
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        host = "localhost" if tls else "127.0.0.1"
        self.url = f"http{'s' if tls else ''}://{host}:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def got(self, path, body):
        with self._lock:
            self.requests.append((path, body))

    def streamed(self):
        with self._lock:
            return [body for _, body in self.requests if body and body.get("stream")]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
