"""The Python environment of the scripts and tests, one per content of its requirements file."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

from . import console, paths


def path_of(requirements: str = "requirements.txt") -> Path:
    """Where the environment for hack/<requirements> lies, or will lie once made."""
    text = (paths.REPO / "hack" / requirements).read_bytes()
    key = hashlib.sha256(text + f"{sys.version_info[:3]} {os.path.realpath(sys.executable)}".encode()).hexdigest()[:10]
    stem = requirements.removesuffix(".txt").removeprefix("requirements").strip("-")
    return paths.cache_dir() / f"venv-{stem + '-' if stem else ''}{key}"


def ensure(requirements: str = "requirements.txt", note: str = "") -> Path:
    """Makes the environment unless it is there. Returns its Python."""
    target = path_of(requirements)
    python = target / "bin" / "python"
    if (target / ".complete").exists():
        return python
    paths.cache_dir().mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    base = [os.path.realpath(sys.executable)]
    console.run_logged("make a Python environment", [*base, "-m", "venv", target],
                       paths.logs_dir() / "venv.log", quiet_below=2)
    # Every wheel's checksum is in the file. What is built from source comes on top, from a file of its own.
    _install(python, f"install Python packages{note}", "requirements.txt", ["--require-hashes", "--only-binary=:all:"])
    if requirements != "requirements.txt":
        _install(python, f"install Python packages{note}", requirements, [])
    (target / ".complete").touch()
    return python


def _install(python: Path, what: str, requirements: str, options: list[str]) -> None:
    console.run_logged(what, [python, "-m", "pip", "install", "--retries", "5", "--timeout", "60", *options,
                              "-r", paths.REPO / "hack" / requirements], paths.logs_dir() / "pip.log", attempts=4)
