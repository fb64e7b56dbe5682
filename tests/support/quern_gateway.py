"""Starts the real quern-gateway for tests, before servers that quern_serve starts."""

import sys
from pathlib import Path

import quern_serve

sys.path.insert(0, str(quern_serve.ROOT / "hack" / "lib"))
from quern_dev.kube_api import free_ports  # noqa: E402


def binary() -> str:
    return str(Path(quern_serve.binary()).with_name("quern-gateway"))


class Gateway(quern_serve.Server):
    """One quern-gateway on free loopback ports, before these servers (or ports, where nothing may listen yet)."""

    def __init__(self, upstreams, *options: str, ready: int | None = None):
        urls = [each.url if hasattr(each, "url") else f"http://127.0.0.1:{each}" for each in upstreams]
        named = [part for url in urls for part in ("--upstream", url)]
        self._start([binary(), "--port", "0", "--admin-port", "0", *named, *options])
        wanted = sum(hasattr(each, "url") for each in upstreams) if ready is None else ready
        quern_serve.wait_for(lambda: self.metric("quern_gateway_replicas_ready") == wanted, f"{wanted} ready replicas")


__all__ = ["Gateway", "binary", "free_ports"]
