"""A small Kubernetes API client for scripts: JSON over TLS with a client certificate."""

import base64
import contextlib
import http.client
import json
import os
import random
import socket
import ssl
import tempfile
import time
import urllib.parse
from pathlib import Path


class ApiError(Exception):
    """An answer of 400 or above. `status` is the HTTP status; str() is the server's message."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Client:
    """Talks to the server named in a kubeconfig that `pki.write_kubeconfig` wrote. Not for threads to share."""

    def __init__(self, kubeconfig: Path, timeout: float = 10.0):
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        url = urllib.parse.urlsplit(cluster["server"])
        self._host, self._port, self._timeout = url.hostname, url.port, timeout
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=ca)
        # load_cert_chain reads files only.
        with tempfile.NamedTemporaryFile() as file:
            file.write(base64.b64decode(user["client-certificate-data"]))
            file.write(b"\n" + base64.b64decode(user["client-key-data"]))
            file.flush()
            os.chmod(file.name, 0o600)
            self._context.load_cert_chain(file.name)

    def request(self, method: str, path: str, body=None, content_type: str = "application/json"):
        """Returns the parsed answer (text where it is no JSON). Raises ApiError, or OSError when unreachable."""
        connection = http.client.HTTPSConnection(self._host, self._port, context=self._context, timeout=self._timeout)
        try:
            payload = None if body is None else json.dumps(body).encode()
            connection.request(method, path, payload, {"Content-Type": content_type, "Accept": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(f"broken answer: {error!r}") from error
        finally:
            connection.close()
        is_json = response.getheader("Content-Type", "").startswith("application/json")
        answer = json.loads(text) if is_json else text
        if response.status >= 400:
            raise ApiError(response.status, answer.get("message", text) if is_json else text)
        return answer

    def get(self, path: str):
        return self.request("GET", path)

    def apply(self, path: str, body: dict):
        """Server-side apply: makes the object, or brings our fields of it into this state."""
        return self.request("PATCH", f"{path}?fieldManager=quern-hack&force=true", body, "application/apply-patch+yaml")

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz") == "ok"
        except (ApiError, OSError, ValueError):
            return False

    def wait_ready(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        return True


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nothing uses just now, and that the system gives nobody for a connection or for port 0
    before the caller listens on them."""
    first, last = (int(each) for each in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    candidates = [port for port in range(10000, 65536) if not first <= port <= last]
    with contextlib.ExitStack() as held:
        found: list[int] = []
        for port in random.sample(candidates, k=min(len(candidates), 1000)):
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"fewer than {count} of the tried ports outside {first} to {last} are free")
