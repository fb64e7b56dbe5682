"""Where things lie: the checkout, the cache outside it, and the cluster's state."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]


def cache_dir() -> Path:
    """Everything downloaded or built from others' sources, keyed by version. Never in the checkout."""
    return Path(os.environ.get("QUERN_CACHE") or Path.home() / ".cache" / "quern")


def state_dir() -> Path:
    """The local cluster's data, sockets, logs and kubeconfig."""
    return Path(os.environ.get("QUERN_STATE") or cache_dir() / "cluster")


def models_dir() -> Path:
    return cache_dir() / "models"


def logs_dir() -> Path:
    path = cache_dir() / "logs"
    path.mkdir(parents=True, exist_ok=True)
    return path
